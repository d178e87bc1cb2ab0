//! Word vectors of small texts, and those of one language turned into another's.
//!
//! Vectors are the strongest singular directions of positive pointwise mutual information (Levy and Goldberg, "Neural Word Embedding as
//! Implicit Matrix Factorization", 2014): `max(0, ln (n_ab n / (n_a n_b)))` of words that stand within four words of each other. Languages are
//! aligned by the orthogonal matrix that brings known pairs nearest to each other (Procrustes): `Q = U Vᵀ` of `Xᵀ Y = U S Vᵀ`.

use std::collections::HashMap;

use ounce_kernels::eigen::symmetric;

/// Words on each side that count as near.
const WINDOW: usize = 4;

/// Words with their vectors, the most frequent first.
#[derive(Debug, Clone)]
pub(super) struct Vectors {
    pub words: Vec<String>,
    pub width: usize,
    /// `[words, width]`, of length 1 each.
    pub values: Vec<f32>,
}

/// The words of a text, in small letters.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

impl Vectors {
    /// Vectors of the most frequent words of a text; none if it has too few.
    pub fn new(text: &str, most: usize, width: usize) -> Option<Vectors> {
        let read = words(text);
        let mut counts: HashMap<&str, usize> = HashMap::new();
        read.iter().for_each(|word| *counts.entry(word).or_default() += 1);
        let mut order: Vec<(&str, usize)> = counts.into_iter().collect();
        order.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        order.truncate(most);
        let n = order.len();
        if n < width {
            return None;
        }
        let places: HashMap<&str, usize> =
            order.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
        let ids: Vec<Option<usize>> = read.iter().map(|word| places.get(word.as_str()).copied()).collect();
        let mut pairs = vec![0.0f64; n * n];
        for (at, a) in ids.iter().enumerate() {
            let Some(a) = a else { continue };
            for b in ids[at + 1..].iter().take(WINDOW).flatten() {
                pairs[a * n + b] += 1.0;
                pairs[b * n + a] += 1.0;
            }
        }
        let sums: Vec<f64> = pairs.chunks_exact(n).map(|row| row.iter().sum()).collect();
        let all: f64 = sums.iter().sum();
        for a in 0..n {
            for b in 0..n {
                let near = &mut pairs[a * n + b];
                *near = if *near > 0.0 { (*near * all / (sums[a] * sums[b])).ln().max(0.0) } else { 0.0 };
            }
        }
        let (found, directions) = symmetric(pairs, n)?;
        let mut values = vec![0.0f32; n * width];
        for word in 0..n {
            let row: Vec<f64> =
                (0..width).map(|k| found[k].max(0.0).sqrt() * directions[k * n + word]).collect();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
            let to = &mut values[word * width..(word + 1) * width];
            to.iter_mut().zip(&row).for_each(|(to, x)| *to = (x / length) as f32);
        }
        Some(Vectors { words: order.into_iter().map(|(word, _)| word.to_owned()).collect(), width, values })
    }

    pub fn of(&self, word: usize) -> &[f32] {
        &self.values[word * self.width..(word + 1) * self.width]
    }

    /// Turns all vectors so that known pairs, words here and there, come near to `to`'s.
    pub fn turn(&mut self, to: &Vectors, pairs: &[(usize, usize)]) -> Option<()> {
        let d = self.width;
        let from: Vec<f32> = pairs.iter().flat_map(|(here, _)| self.of(*here).to_vec()).collect();
        let there: Vec<f32> = pairs.iter().flat_map(|(_, there)| to.of(*there).to_vec()).collect();
        let q = procrustes(&from, &there, d)?;
        for row in self.values.chunks_exact_mut(d) {
            let turned: Vec<f64> =
                (0..d).map(|j| (0..d).map(|i| f64::from(row[i]) * q[i * d + j]).sum()).collect();
            row.iter_mut().zip(turned).for_each(|(x, y)| *x = y as f32);
        }
        Some(())
    }
}

/// `Q`, `[d, d]`, orthogonal, for which `‖X Q − Y‖` is least.
fn procrustes(x: &[f32], y: &[f32], d: usize) -> Option<Vec<f64>> {
    let mut m = vec![0.0f64; d * d];
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact(d)) {
        for i in 0..d {
            (0..d).for_each(|j| m[i * d + j] += f64::from(x[i]) * f64::from(y[j]));
        }
    }
    let mut square = vec![0.0f64; d * d];
    for i in 0..d {
        for j in 0..d {
            square[i * d + j] = (0..d).map(|k| m[k * d + i] * m[k * d + j]).sum();
        }
    }
    let (_, right) = symmetric(square, d)?;
    let mut q = vec![0.0f64; d * d];
    for v in right.chunks_exact(d) {
        let u: Vec<f64> = m.chunks_exact(d).map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum()).collect();
        let length = u.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length < 1e-9 {
            continue;
        }
        for i in 0..d {
            (0..d).for_each(|j| q[i * d + j] += u[i] / length * v[j]);
        }
    }
    Some(q)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::numbers;
    use super::super::cosine;
    use super::*;

    #[test]
    fn a_turn_is_found_again() {
        let d = 4;
        let x = numbers(30 * d, 1);
        // Two turns in planes.
        let (s, c) = (0.6f32, 0.8f32);
        let turned: Vec<f32> = x
            .chunks(d)
            .flat_map(|v| {
                [c * v[0] - s * v[1], s * v[0] + c * v[1], s * v[3] + c * v[2], c * v[3] - s * v[2]]
            })
            .collect();
        let q = procrustes(&x, &turned, d).expect("numbers");
        for (v, w) in x.chunks(d).zip(turned.chunks(d)) {
            for j in 0..d {
                let sum: f64 = (0..d).map(|i| f64::from(v[i]) * q[i * d + j]).sum();
                assert!((sum - f64::from(w[j])).abs() < 1e-5, "{sum} {}", w[j]);
            }
        }
    }

    #[test]
    fn words_in_the_same_company_are_near() {
        let mut text = String::new();
        for at in 0..400 {
            let animal = ["cat", "dog"][at % 2];
            let food = ["bread", "cheese"][at / 2 % 2];
            text += &format!("the {animal} sleeps and barks at night. we eat {food} with butter at noon. ");
        }
        let vectors = Vectors::new(&text, 50, 6).expect("enough words");
        let of = |word: &str| vectors.of(vectors.words.iter().position(|it| it == word).expect("there"));
        let (near, far) = (cosine(of("cat"), of("dog")), cosine(of("cat"), of("cheese")));
        assert!(near > far + 0.3, "{near} {far}");
        assert_eq!(vectors.words[0], "at");
        assert!(Vectors::new("too few", 50, 6).is_none());
    }
}
