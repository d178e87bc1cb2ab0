//! What filters are worth, by a batch of pictures.

use candle_core::Tensor;
use ounce_kernels::conv::Window;
use ounce_train::vision::{Hook, Net, Step, ops};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Result;

/// How filters are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// The L1 norm times what the filter makes of its input's spread.
    Beta,
    /// The L1 norm.
    L1,
    /// The mean rank of what it gives behind its ReLU (Lin et al., 2020).
    HRank,
    /// Chance, of this seed.
    Random(u64),
}

/// Keeps all values of a pass.
#[derive(Default)]
struct Watch(Vec<Tensor>);

impl Hook for Watch {
    fn value(&mut self, _: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        self.0.push(x.clone());
        Ok(x)
    }
}

/// Values of a batch of pictures `[images, height, width, channels]`.
#[derive(Debug, Clone, Copy)]
pub struct Values<'v> {
    /// All of them.
    pub data: &'v [f32],
    /// Images, height, width, channels.
    pub shape: [usize; 4],
}

/// The deviation of what a window reads at each output position, over the batch, channels and window; padding counts as zeros.
pub fn window_deviations(x: Values<'_>, window: &Window) -> Vec<f64> {
    let [images, height, width, channels] = x.shape;
    // Sums over the batch and channels of each pixel, of values and of squares.
    let mut sums = vec![[0.0f64; 2]; height * width];
    for image in x.data.chunks_exact(height * width * channels) {
        for (sum, pixel) in sums.iter_mut().zip(image.chunks_exact(channels)) {
            for value in pixel {
                sum[0] += f64::from(*value);
                sum[1] += f64::from(*value).powi(2);
            }
        }
    }
    let count = (images * window.depth()) as f64;
    let (pad, size) = (window.padding(), window.size);
    let mut out = Vec::new();
    for top in 0..window.result(height) {
        for left in 0..window.result(width) {
            let mut sum = [0.0; 2];
            for row in
                (top * window.stride..top * window.stride + size).filter_map(|row| row.checked_sub(pad))
            {
                for column in (left * window.stride..left * window.stride + size)
                    .filter_map(|column| column.checked_sub(pad))
                {
                    if row < height && column < width {
                        let own = sums[row * width + column];
                        sum = [sum[0] + own[0], sum[1] + own[1]];
                    }
                }
            }
            out.push((sum[1] / count - (sum[0] / count).powi(2)).max(0.0).sqrt());
        }
    }
    out
}

/// The deviation of each position and channel over the batch, `[height · width, channels]`.
pub fn deviations(y: Values<'_>) -> Vec<f64> {
    let [images, height, width, channels] = y.shape;
    let one = height * width * channels;
    let mut sums = vec![[0.0f64; 2]; one];
    for image in y.data.chunks_exact(one) {
        for (sum, value) in sums.iter_mut().zip(image) {
            sum[0] += f64::from(*value);
            sum[1] += f64::from(*value).powi(2);
        }
    }
    let count = images as f64;
    sums.iter().map(|sum| (sum[1] / count - (sum[0] / count).powi(2)).max(0.0).sqrt()).collect()
}

/// `β` of each channel of `y` from what the window reads of `x`.
pub fn betas(x: Values<'_>, y: Values<'_>, window: &Window) -> Vec<f64> {
    let (given, made) = (window_deviations(x, window), deviations(y));
    let channels = y.shape[3];
    let (mut sums, mut count) = (vec![0.0; channels], 0.0);
    for (given, made) in given.iter().zip(made.chunks_exact(channels)) {
        if *given > 0.0 {
            count += 1.0;
            sums.iter_mut().zip(made).for_each(|(sum, made)| *sum += made / given);
        }
    }
    sums.into_iter().map(|sum| if count > 0.0 { sum / count } else { 0.0 }).collect()
}

/// The rank of a matrix by elimination; what is below `1e-5` of its largest number counts as zero.
pub fn matrix_rank(values: &[f32], columns: usize) -> usize {
    let mut rows: Vec<Vec<f64>> = values
        .chunks_exact(columns.max(1))
        .map(|row| row.iter().map(|value| f64::from(*value)).collect())
        .collect();
    let largest = rows.iter().flatten().fold(0.0f64, |most, value| most.max(value.abs()));
    let mut rank = 0;
    for column in 0..columns {
        let size = |row: &usize| rows[*row][column].abs();
        let Some(pivot) = (rank..rows.len()).max_by(|a, b| size(a).total_cmp(&size(b))) else { break };
        if rows[pivot][column].abs() <= 1e-5 * largest {
            continue;
        }
        rows.swap(rank, pivot);
        let (above, below) = rows.split_at_mut(rank + 1);
        let pivot = &above[rank];
        for row in below {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).skip(column).for_each(|(value, pivot)| *value -= factor * pivot);
        }
        rank += 1;
    }
    rank
}

/// Brings numbers to 0…1.
fn normalized(values: Vec<f64>) -> Vec<f64> {
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let range = most - least;
    values.into_iter().map(|value| if range > 0.0 { (value - least) / range } else { 1.0 }).collect()
}

fn of(x: &Tensor) -> Result<(Vec<f32>, [usize; 4])> {
    let (images, height, width, channels) = x.dims4().map_err(ounce_train::Error::from)?;
    let data = x.flatten_all().and_then(|it| it.to_vec1()).map_err(ounce_train::Error::from)?;
    Ok((data, [images, height, width, channels]))
}

/// What the filters of each step with a norm are worth within it, from 0 to 1; of other steps nothing.
///
/// # Errors
/// If pictures don't fit the network.
pub fn rank(net: &Net, images: &[f32], ranking: Ranking) -> Result<Vec<Option<Vec<f64>>>> {
    let mut watch = Watch::default();
    net.forward(images, &mut watch)?;
    let mut random = ChaCha8Rng::seed_from_u64(match ranking {
        Ranking::Random(seed) => seed,
        Ranking::Beta | Ranking::L1 | Ranking::HRank => 0,
    });
    let mut all = Vec::new();
    for (index, step) in net.architecture.steps.iter().enumerate() {
        let (Step::Conv { from, window, norm: true, .. }, Some((_, filters))) = (*step, net.weights(index))
        else {
            all.push(None);
            continue;
        };
        let norms = filters.value.chunks_exact(window.depth());
        let norms: Vec<f64> = norms.map(|filter| filter.iter().map(|w| f64::from(w.abs())).sum()).collect();
        let worth = match ranking {
            Ranking::L1 => norms,
            Ranking::Random(_) => norms.iter().map(|_| random.random::<f64>()).collect(),
            Ranking::Beta => {
                let shape = (window.outputs, window.depth());
                let matrix = ounce_train::graph::ops::tensor(filters.value.clone(), shape)
                    .map_err(ounce_train::Error::from)?;
                let y = ops::convolve(&watch.0[from], &matrix, window)?;
                let ((x, x_shape), (y, y_shape)) = (of(&watch.0[from])?, of(&y)?);
                let betas =
                    betas(Values { data: &x, shape: x_shape }, Values { data: &y, shape: y_shape }, &window);
                norms.iter().zip(betas).map(|(norm, beta)| norm * beta).collect()
            }
            Ranking::HRank => {
                let (y, [images, height, width, channels]) = of(&watch.0[index + 1])?;
                let mut sums = vec![0.0; channels];
                for image in y.chunks_exact(height * width * channels) {
                    for (channel, sum) in sums.iter_mut().enumerate() {
                        let map: Vec<f32> = image.iter().skip(channel).step_by(channels).copied().collect();
                        *sum += matrix_rank(&map, width) as f64 / images as f64;
                    }
                }
                sums
            }
        };
        all.push(Some(normalized(worth)));
    }
    Ok(all)
}

/// How much of the `share` of the best filters of each layer two rankings have in common, of 0…1, as a mean over layers.
pub fn agreement(a: &[Option<Vec<f64>>], b: &[Option<Vec<f64>>], share: f64) -> f64 {
    let best = |worth: &[f64]| -> Vec<usize> {
        let mut order: Vec<usize> = (0..worth.len()).collect();
        order.sort_by(|a, b| worth[*b].total_cmp(&worth[*a]).then(a.cmp(b)));
        order.truncate(((share * worth.len() as f64) as usize).max(1));
        order
    };
    let layers: Vec<f64> = a
        .iter()
        .zip(b)
        .filter_map(|(a, b)| Some((best(a.as_ref()?), best(b.as_ref()?))))
        .map(|(a, b)| a.iter().filter(|at| b.contains(at)).count() as f64 / a.len() as f64)
        .collect();
    layers.iter().sum::<f64>() / layers.len().max(1) as f64
}
