//! Minimising a smooth function of a few numbers: BFGS with a line search that keeps the Wolfe conditions.

/// Where the search ended.
#[derive(Debug, Clone)]
pub struct Minimum {
    /// The place.
    pub at: Vec<f64>,
    /// The function's value there.
    pub value: f64,
}

/// Searches downwards from `start`. `function` writes the gradient into its second argument and gives the value.
pub fn bfgs(function: &dyn Fn(&[f64], &mut [f64]) -> f64, start: &[f64], iterations: usize) -> Minimum {
    let size = start.len();
    let mut at = start.to_vec();
    let mut gradient = vec![0.0; size];
    let mut value = function(&at, &mut gradient);
    let mut inverse = identity(size);
    let mut restarted = true;
    for _ in 0..iterations {
        let mut direction: Vec<f64> = inverse.iter().map(|row| -dot(row, &gradient)).collect();
        if !(dot(&direction, &gradient) < 0.0) {
            inverse = identity(size);
            direction = gradient.iter().map(|it| -it).collect();
        }
        let Some(step) = search(function, &at, value, &gradient, &direction) else {
            // The curvature that was gathered may mislead; try once along the gradient.
            if restarted {
                break;
            }
            inverse = identity(size);
            restarted = true;
            continue;
        };
        restarted = false;
        let moved: Vec<f64> = step.at.iter().zip(&at).map(|(new, old)| new - old).collect();
        let turned: Vec<f64> = step.gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        let done = (value - step.value).abs() <= 1e-15 * value.abs().max(1e-300);
        (at, value, gradient) = (step.at, step.value, step.gradient);
        update(&mut inverse, &moved, &turned);
        if done || dot(&gradient, &gradient).sqrt() < 1e-14 {
            break;
        }
    }
    Minimum { at, value }
}

struct Step {
    at: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

/// Bisects for a step that is neither too long (Armijo) nor too short (curvature); at the end any that descends will do.
fn search(
    function: &dyn Fn(&[f64], &mut [f64]) -> f64,
    at: &[f64],
    value: f64,
    gradient: &[f64],
    direction: &[f64],
) -> Option<Step> {
    let slope = dot(gradient, direction);
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    let mut best: Option<Step> = None;
    for _ in 0..60 {
        let place: Vec<f64> = at.iter().zip(direction).map(|(x, d)| x + length * d).collect();
        let mut there = vec![0.0; at.len()];
        let found = function(&place, &mut there);
        if !(found <= value + 1e-4 * length * slope) {
            high = length;
        } else {
            let flat = dot(&there, direction) >= 0.9 * slope;
            best = Some(Step { at: place, value: found, gradient: there });
            if flat {
                break;
            }
            low = length;
        }
        length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    best.filter(|step| step.value < value)
}

/// The BFGS update of the inverse Hessian.
fn update(inverse: &mut [Vec<f64>], moved: &[f64], turned: &[f64]) {
    let curvature = dot(moved, turned);
    if !(curvature > 1e-300) {
        return;
    }
    let product: Vec<f64> = inverse.iter().map(|row| dot(row, turned)).collect();
    let factor = (1.0 + dot(turned, &product) / curvature) / curvature;
    for (i, row) in inverse.iter_mut().enumerate() {
        for (j, entry) in row.iter_mut().enumerate() {
            *entry +=
                factor * moved[i] * moved[j] - (product[i] * moved[j] + moved[i] * product[j]) / curvature;
        }
    }
}

fn identity(size: usize) -> Vec<Vec<f64>> {
    (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosenbrocks_valley_is_followed_to_its_end() {
        let function = |x: &[f64], gradient: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient[0] = -2.0 * a - 400.0 * x[0] * b;
            gradient[1] = 200.0 * b;
            a * a + 100.0 * b * b
        };
        let found = bfgs(&function, &[-1.2, 1.0], 200);
        assert!(found.at.iter().all(|it| (it - 1.0).abs() < 1e-7), "{found:?}");
    }
}
