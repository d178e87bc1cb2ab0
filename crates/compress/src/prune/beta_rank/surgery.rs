//! Networks without some of their filters.

use ounce_train::vision::{Architecture, Net, Step};

use crate::{Error, Result};

/// Which filters leave each step: of each with a worth the `⌊share · filters⌋` of the least, of equal ones the later, but not all.
pub fn lowest_of_layers(worth: &[Option<Vec<f64>>], share: f64) -> Vec<Vec<usize>> {
    let of = |worth: &Option<Vec<f64>>| {
        let Some(worth) = worth else { return Vec::new() };
        let mut order: Vec<usize> = (0..worth.len()).collect();
        order.sort_by(|a, b| worth[*a].total_cmp(&worth[*b]).then(b.cmp(a)));
        order.truncate(((share * worth.len() as f64) as usize).min(worth.len().saturating_sub(1)));
        order.sort_unstable();
        order
    };
    worth.iter().map(of).collect()
}

/// The channels of each value that stay, and the architecture of them.
fn narrowed(architecture: &Architecture, gone: &[Vec<usize>]) -> Result<(Architecture, Vec<Vec<usize>>)> {
    let mut kept: Vec<Vec<usize>> = vec![(0..architecture.channels).collect()];
    let mut widths = vec![architecture.channels];
    let mut steps = Vec::new();
    for (index, step) in architecture.steps.iter().enumerate() {
        let own = match *step {
            Step::Conv { from, mut window, norm, relu } => {
                let gone = gone.get(index).map_or(&[][..], Vec::as_slice);
                let own: Vec<usize> = (0..window.outputs).filter(|it| !gone.contains(it)).collect();
                if own.is_empty() || gone.iter().any(|it| *it >= window.outputs) {
                    return Err(Error::Option(format!(
                        "step {index} has filters 0 to {}; name some that leave, and leave one at least",
                        window.outputs - 1
                    )));
                }
                widths.push(window.outputs);
                (window.inputs, window.outputs) = (kept[from].len(), own.len());
                steps.push(Step::Conv { from, window, norm, relu });
                kept.push(own);
                continue;
            }
            Step::Pool { from } | Step::Grow { from } | Step::Mean { from } => {
                widths.push(widths[from]);
                kept[from].clone()
            }
            Step::Join { from: [a, b] } => {
                widths.push(widths[a] + widths[b]);
                kept[a].iter().copied().chain(kept[b].iter().map(|it| widths[a] + it)).collect()
            }
        };
        steps.push(*step);
        kept.push(own);
    }
    Ok((Architecture { steps, ..architecture.clone() }, kept))
}

/// The network without the filters of each step that are named: a smaller one, with their norms and with the channels that read
/// them gone too. Steps beyond those named keep all.
///
/// # Errors
/// If a step has no such filter, or would have none left.
pub fn cut(net: &Net, gone: &[Vec<usize>]) -> Result<Net> {
    let (architecture, kept) = narrowed(&net.architecture, gone)?;
    let mut small = Net::new(architecture, 0)?;
    for (index, step) in net.architecture.steps.iter().enumerate() {
        let Step::Conv { from, window, norm, .. } = *step else { continue };
        let (inputs, outputs) = (&kept[from], &kept[index + 1]);
        let named = |part: &str| format!("steps.{index}.{part}");
        let find =
            |name: String| net.params.iter().find(|param| param.name == name).map(|param| &param.value);
        let pick = |values: &[f32]| outputs.iter().map(|at| values[*at]).collect::<Vec<f32>>();
        let mut parts = Vec::new();
        if let Some(weights) = find(named("weight")) {
            let rows = outputs.iter().map(|row| &weights[row * window.depth()..(row + 1) * window.depth()]);
            let taken = rows.flat_map(|row| {
                row.chunks_exact(window.inputs).flat_map(|tap| inputs.iter().map(|at| tap[*at]))
            });
            parts.push((named("weight"), taken.collect::<Vec<f32>>()));
        }
        for part in ["gamma", "beta", "bias"] {
            parts.extend(find(named(part)).map(|values| (named(part), pick(values))));
        }
        for (name, values) in parts {
            if let Some(param) = small.params.iter_mut().find(|param| param.name == name) {
                param.value = values;
            }
        }
        if norm {
            let (from, to) = (&net.running[index], &mut small.running[index]);
            (to.mean, to.variance) = (pick(&from.mean), pick(&from.variance));
        }
    }
    Ok(small)
}
