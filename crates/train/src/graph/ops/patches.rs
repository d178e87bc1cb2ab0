//! What a 3 × 3 convolution sees, so that it is a product: `y = patches(x) · Wᵀ`, and on the way back each value gathers
//! from the patches it lies in.

use candle_core::Tensor;
use ounce_kernels::conv::Window;
use ounce_kernels::conv::columns::{self, Batch};
use ounce_kernels::pool::Pool;

use super::{Kernels, check_last, node, read, tensor};
use crate::{Error, Result};

/// Points of a side of a patch, and of all of it.
const SIDE: usize = 3;
const POINTS: usize = SIDE * SIDE;

/// Images of `height` × `width` points with `channels` values each, row by row, one image behind the other, `[points,
/// channels]`, to the neighbourhood of every point, `[points, 9 · channels]`: three rows of three points. Outside an image
/// there are zeros.
///
/// # Errors
/// If these are no whole images.
pub fn patches(on: Kernels, x: &Tensor, (height, width): (usize, usize), channels: usize) -> Result<Tensor> {
    check_last("patches", x, channels)?;
    let points = x.elem_count() / channels;
    if height * width == 0 || !points.is_multiple_of(height * width) {
        return Err(Error::Unsupported(format!(
            "patches: {points} points are no whole images of {height} × {width}"
        )));
    }
    let x = x.contiguous()?;
    let mut out = vec![0.0; points * POINTS * channels];
    read([&x], |[x]| gather(on.pool, x, (height, width), channels, &mut out))?;
    let shape = x.shape().clone();
    Ok(node("patches", &[&x], out, (points, POINTS * channels), move |behind| {
        let mut dx = vec![0.0; points * channels];
        read([&behind.gradient], |[dy]| scatter(on.pool, dy, (height, width), channels, &mut dx))?;
        Ok(vec![Some(tensor(dx, shape.clone())?)])
    })?)
}

/// One image, and the window that patches see.
fn shape((height, width): (usize, usize), channels: usize) -> (Batch, Window) {
    let window = Window { inputs: channels, outputs: 1, size: SIDE, stride: 1 };
    (Batch { images: 1, height, width }, window)
}

fn gather(pool: &Pool, x: &[f32], size: (usize, usize), channels: usize, out: &mut [f32]) {
    let (one, window) = shape(size, channels);
    pool.split_chunks(out, one.pixels() * window.depth(), |image, out| {
        let values = one.pixels() * channels;
        columns::unfold(&x[image * values..][..values], &one, &window, out);
    });
}

fn scatter(pool: &Pool, dy: &[f32], size: (usize, usize), channels: usize, dx: &mut [f32]) {
    let (one, window) = shape(size, channels);
    pool.split_chunks(dx, one.pixels() * channels, |image, dx| {
        let values = one.pixels() * window.depth();
        columns::fold(&dy[image * values..][..values], &one, &window, dx);
    });
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::{Factor, linear};
    use super::*;

    /// candle's own convolution gives the same, forward and backward.
    #[test]
    fn a_product_of_patches_is_a_convolution() {
        let (images, height, width, inputs, outputs) = (3, 4, 5, 2, 6);
        let random = |shape: &[usize]| Var::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let (x, w) = (random(&[images, inputs, height, width]), random(&[outputs, inputs, 3, 3]));
        let weigh = random(&[images, outputs, height, width]);
        let plain = (x.conv2d(&w, 1, 1, 1, 1).unwrap() * weigh.as_tensor()).unwrap().sum_all().unwrap();
        let rows = x.permute((0, 2, 3, 1)).unwrap().reshape((images * height * width, inputs)).unwrap();
        let matrix = w.permute((0, 2, 3, 1)).unwrap().reshape((outputs, 9 * inputs)).unwrap();
        let on = Kernels::default();
        let seen = patches(on, &rows, (height, width), inputs).unwrap();
        let own = linear(on, &seen, &Factor::Dense(matrix), None).unwrap();
        let weights = weigh.permute((0, 2, 3, 1)).unwrap().reshape(own.shape()).unwrap();
        let own = (own * weights).unwrap().sum_all().unwrap();
        let value = |x: &Tensor| x.to_scalar::<f32>().unwrap();
        assert!((value(&plain) - value(&own)).abs() < 1e-4, "{plain} {own}");
        let (a, b) = (plain.backward().unwrap(), own.backward().unwrap());
        for var in [&x, &w] {
            let away = (a.get(var).unwrap() - b.get(var).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
            assert!(value(&away) < 1e-4, "{away}");
        }
        assert!(patches(on, &rows, (3, 7), inputs).is_err());
    }
}
