//! Images unfolded into rows of windows, and rows of windows added up to images again: convolutions as products of
//! matrices, for training. Images have no border here; what lies outside is 0.

use super::Window;

/// A batch of images `[images, height, width, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Images.
    pub images: usize,
    /// Rows of each.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl Batch {
    /// The batch of results.
    pub fn result(&self, window: &Window) -> Batch {
        Batch { images: self.images, height: window.result(self.height), width: window.result(self.width) }
    }

    /// Pixels of all images.
    pub fn pixels(&self) -> usize {
        self.images * self.height * self.width
    }
}

/// Calls `job(start in the row of columns, start in the image, length)` for each run of values that a window of the
/// result's pixel has in common with its image.
fn runs(batch: &Batch, window: &Window, mut job: impl FnMut(usize, usize, usize)) {
    let (out, padding, depth) = (batch.result(window), window.padding(), window.depth());
    let mut start = 0;
    for image in 0..batch.images {
        for y in 0..out.height {
            for x in 0..out.width {
                let left = (x * window.stride) as isize - padding as isize;
                // Columns of the window that lie inside.
                let from = (-left).max(0) as usize;
                let to = window.size.min((batch.width as isize - left).max(0) as usize);
                for row in 0..window.size {
                    let line = (y * window.stride + row) as isize - padding as isize;
                    if line < 0 || line as usize >= batch.height || from >= to {
                        continue;
                    }
                    let pixel = (image * batch.height + line as usize) * batch.width;
                    let at = (pixel + (left + from as isize) as usize) * window.inputs;
                    let own = start + (row * window.size + from) * window.inputs;
                    job(own, at, (to - from) * window.inputs);
                }
                start += depth;
            }
        }
    }
}

/// `[pixels of the result, size · size · inputs]` of the windows' values.
///
/// # Panics
/// If a slice has not the size of its shape.
pub fn unfold(images: &[f32], batch: &Batch, window: &Window, columns: &mut [f32]) {
    assert_eq!(images.len(), batch.pixels() * window.inputs, "images");
    assert_eq!(columns.len(), batch.result(window).pixels() * window.depth(), "columns");
    columns.fill(0.0);
    runs(batch, window, |own, at, length| {
        columns[own..own + length].copy_from_slice(&images[at..at + length])
    });
}

/// Adds rows of windows to the images that they came from: the backward pass of [`unfold`].
///
/// # Panics
/// As [`unfold`].
pub fn fold(columns: &[f32], batch: &Batch, window: &Window, images: &mut [f32]) {
    assert_eq!(images.len(), batch.pixels() * window.inputs, "images");
    assert_eq!(columns.len(), batch.result(window).pixels() * window.depth(), "columns");
    runs(batch, window, |own, at, length| {
        images[at..at + length]
            .iter_mut()
            .zip(&columns[own..own + length])
            .for_each(|(to, from)| *to += from);
    });
}
