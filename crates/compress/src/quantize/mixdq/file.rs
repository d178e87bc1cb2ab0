//! A quantized denoiser as a safetensors file: codes of each layer's weights packed to its bits, a 16-bit scale for each output
//! channel, everything else in 16 bits, and the plan in the header.

use std::collections::BTreeMap;

use half::f16;
use ounce_train::diffusion::Denoiser;
use serde_json::{Value, json};

use super::plan::{FULL, Plan};
use super::simulate::row_grids;

/// The file's bytes.
pub fn bytes(net: &Denoiser, plan: &Plan) -> Vec<u8> {
    let mut file = Builder::default();
    let mut matrices = Vec::new();
    for (number, layer) in net.layers().iter().enumerate() {
        let name = format!("{}.weight", layer.name);
        match plan.weights[number] {
            FULL => file.half(&name, &[layer.outputs, layer.inputs], net.weight(number).iter().copied()),
            bits => {
                let weights = net.weight(number);
                let grids = row_grids(weights, layer.inputs, bits);
                let rows = weights.chunks(layer.inputs).zip(&grids);
                let codes =
                    rows.flat_map(|(row, grid)| row.iter().map(|&w| (grid.code(w) - grid.low) as u32));
                let packed = pack(codes, bits);
                file.add(&name, "U8", &[packed.len()], &packed);
                file.half(
                    &format!("{}.scale", layer.name),
                    &[layer.outputs],
                    grids.iter().map(|grid| grid.scale),
                );
            }
        }
        matrices.push(name);
    }
    for param in net.params().iter().filter(|param| !matrices.contains(&param.name)) {
        file.half(&param.name, &param.shape, param.value.iter().copied());
    }
    let joined = |bits: &[u32]| bits.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    file.finish(&[("weights", joined(&plan.weights)), ("activations", joined(&plan.activations))])
}

/// Codes one behind the other, the lowest bits first.
pub fn pack(codes: impl Iterator<Item = u32>, bits: u32) -> Vec<u8> {
    let (mut packed, mut held, mut count) = (Vec::new(), 0u64, 0);
    for code in codes {
        held |= u64::from(code) << count;
        count += bits;
        while count >= 8 {
            packed.push(held as u8);
            (held, count) = (held >> 8, count - 8);
        }
    }
    if count > 0 {
        packed.push(held as u8);
    }
    packed
}

/// What [`pack`] packed.
pub fn unpack(packed: &[u8], bits: u32) -> impl Iterator<Item = u32> {
    let (mut bytes, mut held, mut count) = (packed.iter(), 0u64, 0);
    std::iter::from_fn(move || {
        while count < bits {
            held |= u64::from(*bytes.next()?) << count;
            count += 8;
        }
        let code = held & ((1 << bits) - 1);
        (held, count) = (held >> bits, count - bits);
        Some(code as u32)
    })
}

/// A file that grows.
#[derive(Default)]
struct Builder {
    header: BTreeMap<String, Value>,
    data: Vec<u8>,
}

impl Builder {
    fn add(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let from = self.data.len();
        self.data.extend_from_slice(bytes);
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [from, self.data.len()] });
        self.header.insert(name.to_string(), entry);
    }

    fn half(&mut self, name: &str, shape: &[usize], values: impl Iterator<Item = f32>) {
        let bytes: Vec<u8> = values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect();
        self.add(name, "F16", shape, &bytes);
    }

    fn finish(mut self, notes: &[(&str, String)]) -> Vec<u8> {
        self.header
            .insert("__metadata__".into(), notes.iter().cloned().map(|(k, v)| (k.to_string(), v)).collect());
        let header = serde_json::to_string(&self.header).unwrap_or_default();
        let padded = header.len().next_multiple_of(8);
        let mut file = (padded as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.resize(8 + padded, b' ');
        file.extend(self.data);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_codes_come_back() {
        for bits in 2..=8u32 {
            let codes: Vec<u32> = (0..37u32).map(|at| (at * 89 + 3) % (1 << bits)).collect();
            let packed = pack(codes.iter().copied(), bits);
            assert_eq!(packed.len(), (37 * bits as usize).div_ceil(8));
            assert_eq!(unpack(&packed, bits).take(37).collect::<Vec<_>>(), codes);
        }
    }
}
