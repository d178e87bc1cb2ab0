//! Whether generated texts are used, and which.

use crate::Result;

/// Gives the probabilities of labels for a text.
pub type Teacher<'t> = Box<dyn FnMut(&str) -> Result<Vec<f32>> + 't>;

/// Trains a teacher on texts with the numbers of their labels.
pub type Teach<'f, 't> = dyn FnMut(&[(String, usize)]) -> Result<Teacher<'t>> + 'f;

/// What became of generated texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Switched {
    /// Whether they are used.
    pub on: bool,
    /// What the teacher without them, and the one with them, got right of what was held out.
    pub accuracies: [f64; 2],
    /// Texts that are used, with the teacher's probabilities.
    pub kept: Vec<(String, Vec<f32>)>,
    /// Those whose teacher's label was another.
    pub dropped: usize,
}

/// Decides by teachers: `teach` trains one on texts with the numbers of their labels.
///
/// # Errors
/// If a teacher can't be trained or asked.
pub fn switch<'t>(
    few: &[(String, usize)],
    generated: &[(String, usize)],
    held: &[(String, usize)],
    teach: &mut Teach<'_, 't>,
) -> Result<Switched> {
    let likeliest =
        |row: &[f32]| (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    let judged = |teacher: &mut Teacher<'t>| -> Result<f64> {
        let mut right = 0;
        for (text, label) in held {
            right += usize::from(likeliest(&teacher(text)?) == *label);
        }
        Ok(right as f64 / held.len().max(1) as f64)
    };
    let mut without = teach(few)?;
    let mut with = teach(&[few, generated].concat())?;
    let accuracies = [judged(&mut without)?, judged(&mut with)?];
    let on = accuracies[1] > accuracies[0];
    let (mut kept, mut dropped) = (Vec::new(), 0);
    if on {
        for (text, label) in generated {
            let probabilities = with(text)?;
            match likeliest(&probabilities) == *label {
                true => kept.push((text.clone(), probabilities)),
                false => dropped += 1,
            }
        }
    }
    Ok(Switched { on, accuracies, kept, dropped })
}
