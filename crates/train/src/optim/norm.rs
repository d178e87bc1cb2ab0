//! The gradients' global norm.

use ounce_kernels::optimizer::norm::sum_of_squares;
use ounce_kernels::pool::Pool;

use crate::Param;

/// The root of the sum of all squared gradients. The same for every number of threads.
pub fn global_norm(pool: &Pool, params: &[Param]) -> f64 {
    params.iter().map(|param| sum_of_squares(pool, &param.grad)).sum::<f64>().sqrt()
}

/// The factor that brings a norm down to `limit`, or 1.
pub fn clip_factor(norm: f64, limit: Option<f64>) -> f32 {
    match limit {
        Some(limit) if norm > limit => (limit / norm) as f32,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ParamKind;

    #[test]
    fn the_norm_spans_all_weights_and_clipping_brings_it_down() {
        let mut params: Vec<Param> = [3001, 7]
            .map(|size| Param::new(size.to_string(), &[size], ParamKind::Bias, vec![0.0; size]))
            .into();
        params[0].grad.fill(0.5);
        params[1].grad.fill(-2.0);
        let norm = global_norm(Pool::global(), &params);
        assert!((norm - (3001.0f64 * 0.25 + 28.0).sqrt()).abs() < 1e-6);
        assert_eq!(clip_factor(norm, Some(100.0)), 1.0);
        assert_eq!(clip_factor(norm, None), 1.0);
        assert!((f64::from(clip_factor(norm, Some(1.0))) * norm - 1.0).abs() < 1e-6);
        params[1].freeze();
        assert!(global_norm(Pool::global(), &params) < norm);
        params[0].grad[9] = f32::NAN;
        assert!(global_norm(Pool::global(), &params).is_nan());
    }
}
