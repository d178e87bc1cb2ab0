//! The schedule, masks that hold, and bytes that come back.

use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Param, ParamKind, Trainable};
use serde_json::json;

use super::packed::{pack, unpack};
use super::train::{Mask, Options, Schedule, train};
use crate::prune::structured::tests::random;

fn texts() -> Vec<Vec<u32>> {
    (0..24u32).map(|t| (0..16).map(|i| (3 * i + t % 5 + i * (t % 3)) % 31).collect()).collect()
}

#[test]
fn sparsity_rises_fast_at_first_and_ends_where_it_should() {
    let schedule = Schedule { last: 0.8, start: 10, every: 5, times: 4 };
    let found: Vec<Option<f64>> = [0, 9, 10, 12, 15, 20, 25, 30, 35].map(|step| schedule.at(step)).to_vec();
    let expected = |share: f64| Some(0.8 * (1.0 - (1.0 - share).powi(3)));
    assert_eq!(found[..2], [None, None]);
    assert_eq!(found[3], None);
    for (found, share) in
        [(2, 0.0), (4, 0.25), (5, 0.5), (6, 0.75), (7, 1.0)].map(|(at, share)| (found[at], share))
    {
        assert!((found.unwrap() - expected(share).unwrap()).abs() < 1e-12, "{share}");
    }
    assert_eq!((found[7], found[8]), (Some(0.8), None));
    assert_eq!((Schedule::at_once(0.5, 7).at(7), Schedule::at_once(0.5, 7).at(8)), (Some(0.5), None));
}

#[test]
fn matrices_end_exactly_as_sparse_as_asked_and_the_model_learns() {
    let model = random(json!({"model_type": "llama"}));
    let schedule = Schedule { last: 0.75, start: 4, every: 4, times: 4 };
    let options = Options { steps: 40, tokens: 64, rate: 3e-3, schedule: Some(schedule), seed: 1 };
    let sparse = train(&model, &texts(), &options, &mut |_, _| Ok(())).unwrap();
    for tensor in sparse.spec.tensors() {
        let values = sparse.weights.f32(&tensor.name).unwrap();
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        let wanted = if tensor.shape.len() > 1 { values.len() * 3 / 4 } else { 0 };
        assert_eq!(zeros, wanted, "{}", tensor.name);
    }
    let loss = |model: &ounce_model::Model| {
        let text = texts();
        let mut net = Net::from_model(model, NetOptions::default()).unwrap();
        net.loss(&Batch::next_token(text.iter().map(Vec::as_slice))).unwrap().mean()
    };
    assert!(loss(&sparse) < loss(&model));
    let late = Options { steps: 20, ..options };
    let said = train(&model, &texts(), &late, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(said.contains("step 20 of 20"), "{said}");
}

#[test]
fn masked_weights_keep_their_value_until_they_come_back() {
    // Sums of powers of two, so that nothing is rounded.
    let values = vec![0.5, -0.125, 0.25, 0.875, -0.3125, 0.0625];
    let mut param = Param::new("w.weight", &[2, 3], ParamKind::Matrix, values.clone());
    let mut mask = Mask::new(0, 6);
    mask.rank(&mut param, 0.5);
    assert_eq!(param.value, [0.5, 0.0, 0.0, 0.875, -0.3125, 0.0]);
    // An optimizer's momentum moves everything; what is out stays out.
    param.value.iter_mut().for_each(|value| *value += 0.03125);
    mask.hold(&mut param);
    assert_eq!(param.value, [0.53125, 0.0, 0.0, 0.90625, -0.28125, 0.0]);
    // One that stayed falls below one that left: they change places, and the one that left is as it was.
    param.value[4] = -0.15625;
    mask.rank(&mut param, 0.5);
    assert_eq!(param.value, [0.53125, 0.0, 0.25, 0.90625, 0.0, 0.0]);
    mask.rank(&mut param, 0.0);
    assert_eq!(param.value, [0.53125, -0.125, 0.25, 0.90625, -0.15625, 0.0625]);
    assert!(mask.out.iter().all(|out| !out));
}

#[test]
fn what_is_packed_comes_back_and_other_bytes_are_refused() {
    let values = [0.0, 1.5, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0];
    let bytes = pack(&values);
    assert_eq!(bytes.len(), 2 + 3 * 4);
    assert_eq!(unpack(&bytes, 11).as_deref(), Some(&values[..]));
    assert_eq!(unpack(&bytes[..13], 11), None);
    assert_eq!(unpack(&[bytes.clone(), vec![0]].concat(), 11), None);
    assert_eq!(unpack(&bytes[..1], 11), None);
    assert_eq!(unpack(&[], 0), Some(Vec::new()));
}
