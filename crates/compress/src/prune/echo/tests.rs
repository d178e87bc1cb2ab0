//! Similarities of what is known, copies against all choices of them, a student's network against its teacher's, gradients against differences.

use ounce_engine::Engine;
use ounce_model::Model;
use ounce_train::distil::{LiveTeacher, Teacher};
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Trainable};
use serde_json::json;

use super::heal::{Options, heal, lesson_loss};
use super::similarity::{similarity, sources};
use super::student::{Student, dropped};
use crate::prune::structured::tests::random;

fn texts() -> Vec<Vec<u32>> {
    (0..12u32).map(|t| (0..16).map(|i| (3 * i + t % 5 + i * (t % 3)) % 31).collect()).collect()
}

fn model() -> Model {
    random(json!({"model_type": "llama", "tie_word_embeddings": true, "num_hidden_layers": 5}))
}

#[test]
fn the_copies_are_the_best_of_all_choices() {
    let layers = 7;
    let worth: Vec<Vec<f64>> = (0..layers)
        .map(|a| (0..layers).map(|b| ((a * 31 + b * 17 + a * b * 7) % 23) as f64 / 23.0).collect())
        .collect();
    for (keep, copies) in [(1, 0), (1, 2), (1, 5), (2, 2), (2, 3)] {
        let found = sources(&worth, keep, copies).unwrap();
        let sum = |list: &[usize]| {
            (0..layers).filter(|&at| list[at] != at).map(|at| worth[list[at]][at]).sum::<f64>()
        };
        let mut best = f64::NEG_INFINITY;
        for bits in 0..1usize << layers {
            let copies_here: Vec<usize> = (0..layers).filter(|at| bits >> at & 1 == 1).collect();
            if copies_here.len() != copies || copies_here.iter().any(|at| *at < keep || *at >= layers - keep)
            {
                continue;
            }
            let mut list: Vec<usize> = (0..layers).collect();
            for at in 0..layers {
                if copies_here.contains(&at) {
                    list[at] = list[at - 1];
                }
            }
            best = best.max(sum(&list));
        }
        assert!((sum(&found) - best).abs() < 1e-12, "{found:?}");
        assert_eq!((0..layers).filter(|&at| found[at] != at).count(), copies);
    }
    assert!(sources(&worth, 2, 4).unwrap_err().to_string().contains("4 layers can't copy where 3 of 7 may"));
}

#[test]
fn a_layer_attends_as_itself_and_as_its_twin() {
    let model = model();
    // Layers 1 and 2 attend to what comes first alone where queries are nothing: the same for both, whatever goes in.
    let zero = |name: &str| {
        let shape = model.weights.info(name).unwrap().1.to_vec();
        (name.to_owned(), ounce_model::Tensor::from_f32(&shape, &vec![0.0; shape.iter().product()]))
    };
    let even = ["layers.1.attention.query.weight", "layers.2.attention.query.weight"].map(zero);
    let model = Model { weights: model.weights.replaced(even).unwrap(), ..model };
    let found = similarity(&model, &texts(), &mut |_, _| Ok(())).unwrap();
    for layer in 0..5 {
        assert!((found[layer][layer] - 1.0).abs() < 1e-6);
        assert!(
            (0..5)
                .all(|other| found[layer][other] == found[other][layer] && found[layer][other] <= 1.0 + 1e-9)
        );
    }
    assert!((found[1][2] - 1.0).abs() < 1e-6 && found[0][3] < 0.999, "{found:?}");
    assert_eq!(sources(&found, 1, 1).unwrap(), [0, 1, 1, 3, 4]);
}

#[test]
fn without_copies_a_student_is_its_teacher_and_with_them_its_own_queries_are_idle() {
    let model = model();
    let text = texts();
    let batch = Batch::next_token(text.iter().map(Vec::as_slice));
    let mut net = Net::from_model(&model, NetOptions::default()).unwrap();
    let plain = net.loss(&batch).unwrap().mean();
    let mut same = Student::new(&model, &[0, 1, 2, 3, 4]).unwrap();
    assert!((same.run(&batch, None).unwrap().mean() - plain).abs() < 1e-5);
    let sources = [0, 1, 1, 1, 4];
    let mut student = Student::new(&model, &sources).unwrap();
    let loss = student.run(&batch, None).unwrap().mean();
    assert!((loss - plain).abs() > 1e-4);
    assert_eq!(student.block_ends(), [3]);
    // Two layers without queries [32, 24] and keys [16, 24].
    assert_eq!(dropped(&model.spec, &sources), 2 * (32 + 16) * 24);
    // Other queries in a layer that copies change nothing; in its source they do.
    let with = |name: &str| {
        let values: Vec<f32> = model.weights.f32(name).unwrap().iter().map(|w| 3.0 * w + 0.1).collect();
        let shape = model.weights.info(name).unwrap().1.to_vec();
        let other = [(name.to_owned(), ounce_model::Tensor::from_f32(&shape, &values))];
        let model = Model { weights: model.weights.replaced(other).unwrap(), ..model.clone() };
        Student::new(&model, &sources).unwrap().run(&batch, None).unwrap().mean()
    };
    assert_eq!(with("layers.2.attention.query.weight"), loss);
    assert_eq!(with("layers.3.attention.key.weight"), loss);
    assert_ne!(with("layers.1.attention.query.weight"), loss);
    assert_ne!(with("layers.2.attention.value.weight"), loss);
    for wrong in [&[0, 1, 2, 3][..], &[0, 1, 1, 2, 4], &[1, 1, 2, 3, 4]] {
        assert!(Student::new(&model, wrong).unwrap_err().to_string().contains("each of 5 layers"));
    }
    let mixed = random(
        json!({"model_type": "llama", "ounce_layers": [{}, {"num_attention_heads": 2, "num_key_value_heads": 1}, {}]}),
    );
    assert!(Student::new(&mixed, &[0, 1, 2]).unwrap_err().to_string().contains("different shapes"));
}

#[test]
fn a_student_runs_as_a_model_without_the_matrices_that_its_layers_do_without() {
    let teacher = model();
    let sources = [0, 1, 1, 3, 4];
    let mut student = Student::new(&teacher, &sources).unwrap();
    let model = student.model().unwrap();
    assert_eq!(model.spec.parameters(), teacher.spec.parameters() - dropped(&teacher.spec, &sources));
    let text = texts();
    let expected = student.loss(&text[..1]).unwrap();
    // The loss in the engine, from its logits.
    let logits = Engine::new(&model).unwrap().session().logits(&text[0]).unwrap();
    let rows = logits.chunks_exact(model.spec.vocab_size).zip(&text[0][1..]);
    let nats = rows.map(|(row, &next)| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(row.iter().map(|x| (x - most).exp()).sum::<f32>().ln() + most - row[next as usize])
    });
    let found = nats.sum::<f64>() / (text[0].len() - 1) as f64;
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    let said = |error: String| assert!(error.contains("copy"), "{error}");
    said(Net::from_model(&model, NetOptions::default()).map(drop).unwrap_err().to_string());
    said(Student::new(&model, &sources).map(drop).unwrap_err().to_string());
    let unit = crate::prune::structured::Unit::Channel { layer: 0, channel: 0 };
    said(crate::prune::structured::groups::check(&model.spec, unit).unwrap_err().to_string());
}

#[test]
fn gradients_of_a_lesson_are_those_of_its_loss() {
    let teacher = model();
    let sources = [0, 1, 1, 1, 4];
    let text = texts();
    let batch = Batch::next_token(text[..5].iter().map(Vec::as_slice));
    let mut live = LiveTeacher(Net::from_model(&teacher, NetOptions::default()).unwrap());
    let mut student = Student::new(&teacher, &sources).unwrap();
    let lesson = live.lesson(&batch, &student.block_ends()).unwrap();
    let options = Options { streams: 0.3, ..Options::default() };
    let scale = 1.0 / batch.counted() as f32;
    lesson_loss(&mut student, &lesson, &batch, &options, Some(scale)).unwrap();
    let names = [
        ("layers.1.attention.query.weight", 5),
        ("layers.1.attention.key.weight", 40),
        ("layers.3.attention.value.weight", 7),
        ("layers.2.feed_forward.down.weight", 11),
        ("embed.tokens.weight", 30),
    ];
    for (name, at) in names {
        let param = student.net.params().iter().position(|param| param.name == name).unwrap();
        let found = f64::from(student.net.params()[param].grad[at]);
        let mut moved = |step: f32| {
            student.net.params_mut()[param].value[at] += step;
            let loss = lesson_loss(&mut student, &lesson, &batch, &options, None).unwrap().mean();
            student.net.params_mut()[param].value[at] -= step;
            loss
        };
        let slope = (moved(0.01) - moved(-0.01)) / 0.02;
        assert!((found - slope).abs() < 1e-2 * slope.abs().max(0.02), "{name}: {found} {slope}");
    }
    let idle = student.net.params().iter().find(|param| param.name == "layers.2.attention.query.weight");
    assert!(idle.is_none_or(|param| !param.is_trainable()));
}

#[test]
fn a_student_comes_nearer_to_its_teacher_in_both_stages() {
    let teacher = model();
    let text = texts();
    let mut student = Student::new(&teacher, &[0, 1, 1, 1, 4]).unwrap();
    let before = student.loss(&text).unwrap();
    let options = Options { steps: [12, 6], tokens: 64, rate: 3e-3, ..Options::default() };
    let mut steps = Vec::new();
    heal(&mut student, &teacher, &text, &options, &mut |done, all| {
        steps.push((done, all));
        Ok(())
    })
    .unwrap();
    assert!(student.loss(&text).unwrap() < before);
    assert_eq!((steps.len(), steps.last()), (19, Some(&(18, 18))));
    assert!(
        heal(&mut student, &teacher, &[], &options, &mut |_, _| Ok(()))
            .unwrap_err()
            .to_string()
            .contains("empty")
    );
}
