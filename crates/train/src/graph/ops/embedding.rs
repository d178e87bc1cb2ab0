//! Rows by number: out of a table, and into one.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_kernels::grad::embedding::{gather as gather_rows, scatter_add};

use super::{Kernels, node, read, tensor};
use crate::{Error, Result};

/// Refuses a row that is not there.
fn check(what: &str, ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => Err(Error::Unsupported(format!("{what}: row {id} of {rows}"))),
        None => Ok(()),
    }
}

/// `scale · table[ids[i]]`: `[ids, width]` out of `[rows, width]`. The gradient is added up by row, times `shrink`
/// besides.
///
/// # Errors
/// If the table has no such row.
pub fn gather(on: Kernels, table: &Tensor, ids: &Arc<[u32]>, scale: f32, shrink: f32) -> Result<Tensor> {
    let (rows, width) = table.dims2()?;
    check("gather", ids, rows)?;
    let table = table.contiguous()?;
    let mut out = vec![0.0; ids.len() * width];
    read([&table], |[table]| gather_rows(on.pool, table, width, ids, scale, &mut out))?;
    let count = ids.len();
    let ids = ids.clone();
    Ok(node("gather", &[&table], out, (count, width), move |behind| {
        let mut dtable = vec![0.0; rows * width];
        read([&behind.gradient], |[dy]| scatter_add(on.pool, &ids, width, scale * shrink, dy, &mut dtable))?;
        Ok(vec![Some(tensor(dtable, (rows, width))?)])
    })?)
}

/// A table of `rows` rows of zeros to which row `i` of `x` is added at `ids[i]`, in the order of `i`.
///
/// # Errors
/// If the table has no such row, or there are not as many ids as rows in `x`.
pub fn scatter(on: Kernels, x: &Tensor, ids: &Arc<[u32]>, rows: usize) -> Result<Tensor> {
    let (count, width) = x.dims2()?;
    check("scatter", ids, rows)?;
    if count != ids.len() {
        return Err(Error::Unsupported(format!("scatter: {} ids for {count} rows", ids.len())));
    }
    let x = x.contiguous()?;
    let mut out = vec![0.0; rows * width];
    read([&x], |[x]| scatter_add(on.pool, ids, width, 1.0, x, &mut out))?;
    let ids = ids.clone();
    Ok(node("scatter", &[&x], out, (rows, width), move |behind| {
        let mut dx = vec![0.0; ids.len() * width];
        read([&behind.gradient], |[dy]| gather_rows(on.pool, dy, width, &ids, 1.0, &mut dx))?;
        Ok(vec![Some(tensor(dx, (ids.len(), width))?)])
    })?)
}
