use super::*;
use crate::loss::{Chunk, Divergence};
use crate::loss::{Distillation, DivergenceKind, LogitLoss, Softness, TaidOptions};
use ounce_kernels::pool::Pool;

const WIDTH: usize = 40;

/// Logarithms of probabilities, the first tokens likely in a row that depends on `seed`.
fn row(seed: u32) -> Vec<f32> {
    let mut row: Vec<f32> = (0..WIDTH as u32).map(|id| ((id * 7 + seed * 13) % 29) as f32 * 0.3).collect();
    crate::loss::log_softmax(&mut row, None);
    row
}

fn predictions(batch: &Batch) -> Predictions {
    let mut found = Predictions::default();
    for (at, &token) in batch.tokens.iter().enumerate() {
        let chunk = Chunk {
            pool: Pool::global(),
            logits: &mut row(token),
            width: WIDTH,
            targets: &[batch.targets[at]],
            rows: &[at],
            softcap: None,
        };
        found.chunk(chunk, None);
    }
    found
}

fn batch(from: u32) -> Batch {
    let ids: Vec<u32> = (from..from + 6).collect();
    Batch::next_token([&ids[..], &ids[1..4]])
}

fn kept(path: &Path, top: usize) -> Result<KeptTeacher> {
    KeptTeacher::open(path, [3; 32], WIDTH, top)
}

#[test]
fn what_is_kept_is_near_to_what_was_said_and_adds_up_to_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for (top, most) in [(WIDTH, 2e-4), (12, 2e-4), (1, 1e-6)] {
        let mut teacher = kept(&folder.path().join(format!("{top}.bin")), top).expect("made");
        let batch = batch(1);
        let exact = predictions(&batch);
        teacher.keep(&batch, &exact).expect("kept");
        let losses = teacher.losses();
        assert!(losses.rows == 7 && losses.kl.abs() < most, "{top}: {losses:?}");
        assert_eq!(losses.rest > 0.0, top < WIDTH);
        let lesson = teacher.lesson(&batch, &[]).expect("known");
        let (student, mut read) = (row(9), vec![0.0; WIDTH]);
        for at in 0..exact.rows() {
            lesson.rows.fill(at, &student, &mut read);
            let sum: f64 = read.iter().map(|p| f64::from(*p).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{top}: {sum}");
            let own = &exact.values[at * WIDTH..][..WIDTH];
            let mut order: Vec<usize> = (0..WIDTH).collect();
            order.sort_by(|a, b| own[*b].total_cmp(&own[*a]));
            for &id in order.iter().take(top).take(5) {
                assert!((read[id] - own[id]).abs() < 0.05, "{top} {id}: {} {}", read[id], own[id]);
            }
            // The rest stands to one another as the student has it.
            if let [.., a, b] = order[top..] {
                assert!((read[a] - read[b] - (student[a] - student[b])).abs() < 1e-4);
            }
        }
    }
}

/// By every loss, the rest counts as one token: the gradient leaves the student's shares of it alone.
#[test]
fn gradients_take_the_rest_as_one_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut teacher = kept(&folder.path().join("kept.bin"), 3).expect("made");
    let batch = Batch::next_token([&[5, 6][..]]);
    teacher.keep(&batch, &predictions(&batch)).expect("kept");
    let lesson = teacher.lesson(&batch, &[]).expect("known");
    let student = row(11);
    let mut read = vec![0.0; WIDTH];
    lesson.rows.fill(0, &student, &mut read);
    let mut order: Vec<usize> = (0..WIDTH).collect();
    order.sort_by(|a, b| row(5)[*b].total_cmp(&row(5)[*a]));
    let (top, rest) = order.split_at(3);
    // Teacher and student with the rest as one token.
    let bucket = |of: &[f32]| -> Vec<f32> {
        let together: f64 = rest.iter().map(|id| f64::from(of[*id]).exp()).sum();
        top.iter().map(|id| of[*id]).chain([together.ln() as f32]).collect()
    };
    for kind in DivergenceKind::ALL.into_iter().filter(|it| *it != DivergenceKind::AdaptiveKl) {
        let divergence: Box<dyn Divergence> = kind.divergence(TaidOptions::default(), 10).expect("made");
        let mut gradient = student.clone();
        let chunk = Chunk {
            pool: Pool::global(),
            logits: &mut gradient,
            width: WIDTH,
            targets: &[6],
            rows: &[0],
            softcap: None,
        };
        Distillation::by(&*lesson.rows, &*divergence, Softness::default()).chunk(chunk, Some(1.0));
        let mut expected = vec![0.0; 4];
        divergence.row(&bucket(&read), &bucket(&student), Some(&mut expected));
        for (id, expected) in top.iter().zip(&expected) {
            assert!((gradient[*id] - expected).abs() < 1e-4, "{kind:?}: {} {expected}", gradient[*id]);
        }
        let together: f32 = rest.iter().map(|id| gradient[*id]).sum();
        assert!((together - expected[3]).abs() < 1e-4, "{kind:?}: {together} {}", expected[3]);
        for pair in rest.windows(2) {
            let per = |id: usize| gradient[id] / student[id].exp();
            assert!((per(pair[0]) - per(pair[1])).abs() < 1e-3, "{kind:?}");
        }
    }
}

#[test]
fn a_file_that_was_cut_off_goes_on_behind_its_last_whole_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kept.bin");
    let mut teacher = kept(&path, 5).expect("made");
    for from in [1, 2] {
        teacher.keep(&batch(from), &predictions(&batch(from))).expect("kept");
    }
    drop(teacher);
    let whole = std::fs::read(&path).expect("a file");
    for cut in [whole.len() - 1, whole.len() - 70, 60, 20, 0] {
        std::fs::write(&path, &whole[..cut]).expect("written");
        let mut teacher = kept(&path, 5).expect("opened");
        assert!(teacher.len() < 4, "{cut}");
        for from in [1, 2].into_iter().filter(|from| !teacher.knows(&batch(*from))).collect::<Vec<_>>() {
            teacher.keep(&batch(from), &predictions(&batch(from))).expect("kept");
        }
        assert_eq!(teacher.len(), 4);
        let lesson = teacher.lesson(&batch(2), &[]).expect("known");
        let mut read = vec![0.0; WIDTH];
        lesson.rows.fill(0, &row(1), &mut read);
        assert!(read.iter().all(|it| it.is_finite()));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kept.bin");
    let mut teacher = kept(&path, 5).expect("made");
    teacher.keep(&batch(1), &predictions(&batch(1))).expect("kept");
    let busy = kept(&path, 5).expect_err("locked").to_string();
    assert!(busy.contains("another run"), "{busy}");
    drop(teacher);
    for other in [KeptTeacher::open(&path, [4; 32], WIDTH, 5), kept(&path, 6)] {
        let error = other.expect_err("another").to_string();
        assert!(error.contains("another teacher"), "{error}");
    }
    let mut bytes = std::fs::read(&path).expect("a file");
    let place = bytes.len() - 12;
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let mut teacher = kept(&path, 5).expect("opened");
    let error = teacher.lesson(&batch(1), &[]).expect_err("damaged").to_string();
    assert!(error.contains("damaged"), "{error}");
    let error = teacher.lesson(&batch(3), &[]).expect_err("unknown").to_string();
    assert!(error.contains("does not know"), "{error}");
    assert!(kept(&folder.path().join("none.bin"), 0).is_err());
}
