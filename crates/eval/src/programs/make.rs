//! Programs drawn by chance, and sentences that ask for them. Which programs are kept for judging hangs on their text alone, so that
//! nothing that is learned from, whoever draws it, has one of them.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::syntax::{Expr, Operator, Program};

/// One in so many programs is kept for judging.
const KEPT: u64 = 5;

/// What programs are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape<'o> {
    /// Operators of two values.
    pub operators: &'o [Operator],
    /// Whether there is `abs`.
    pub abs: bool,
    /// Operators, at least.
    pub least: usize,
    /// And at most.
    pub most: usize,
}

/// Whether a program is kept for judging.
pub fn is_kept(program: &Program) -> bool {
    // FNV-1a; only has to scatter.
    let hash = program.to_string().bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 20).is_multiple_of(KEPT)
}

/// A program of the shape that is kept for judging, or one that is not.
pub fn program(random: &mut ChaCha8Rng, shape: Shape<'_>, kept: bool) -> Program {
    loop {
        let operators = random.random_range(shape.least..=shape.most);
        let body = expression(random, shape, operators);
        let text = body.to_string();
        // Every parameter is used, so that a sentence says how many there are.
        let parameters = match (text.contains('b'), uses(&body, 'a')) {
            (_, false) => continue,
            (true, true) if uses(&body, 'b') => 2,
            _ => 1,
        };
        let program = Program { parameters, body };
        if is_kept(&program) == kept {
            return program;
        }
    }
}

fn uses(of: &Expr, name: char) -> bool {
    match of {
        Expr::Number(_) => false,
        Expr::Variable(own) => *own == name,
        Expr::Abs(part) => uses(part, name),
        Expr::Pair(_, left, right) | Expr::Sum(left, right) => uses(left, name) || uses(right, name),
        Expr::If { left, right, then, other, .. } => {
            [left, right, then, other].into_iter().any(|it| uses(it, name))
        }
    }
}

fn expression(random: &mut ChaCha8Rng, shape: Shape<'_>, operators: usize) -> Expr {
    if operators == 0 {
        return match random.random_range(0..5) {
            0 | 1 => Expr::Variable('a'),
            2 | 3 => Expr::Variable('b'),
            _ => Expr::Number(random.random_range(1..=3)),
        };
    }
    let at = random.random_range(0..shape.operators.len() + usize::from(shape.abs));
    let Some(&operator) = shape.operators.get(at) else {
        return Expr::Abs(Box::new(expression(random, shape, operators - 1)));
    };
    let left = random.random_range(0..operators);
    Expr::pair(operator, expression(random, shape, left), expression(random, shape, operators - 1 - left))
}

/// What asks for an expression; every sentence is of one expression only.
pub fn sentence(of: &Expr) -> String {
    match of {
        Expr::Number(number) => number.to_string(),
        Expr::Variable(name) => name.to_string(),
        Expr::Abs(part) => format!("the size of {}", sentence(part)),
        Expr::Sum(to, part) => format!("the total of {} up to {}", sentence(part), sentence(to)),
        Expr::Pair(operator, left, right) => {
            let noun = match operator {
                Operator::Add => "sum",
                Operator::Subtract => "difference",
                Operator::Multiply => "product",
                Operator::Min => "smaller",
                Operator::Max => "larger",
            };
            format!("the {noun} of {} and {}", sentence(left), sentence(right))
        }
        Expr::If { equal, left, right, then, other } => format!(
            "{} if {} {} {} else {}",
            sentence(then),
            sentence(left),
            if *equal { "equals" } else { "is below" },
            sentence(right),
            sentence(other)
        ),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn drawn_programs_have_their_shape_and_kept_ones_stay_apart() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let shape = Shape { operators: &[Operator::Max, Operator::Add], abs: true, least: 1, most: 2 };
        let (mut texts, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let program = program(&mut random, shape, false);
            let text = program.to_string();
            assert_eq!(Program::parse(&text).as_ref(), Ok(&program), "{text}");
            assert!(!text.contains('*') && !text.contains("min"), "{text}");
            texts.push(text);
            kept.push(super::program(&mut random, shape, true).to_string());
        }
        assert!(kept.iter().all(|text| !texts.contains(text)));
        texts.sort();
        texts.dedup();
        assert!(texts.len() > 60, "{}", texts.len());
        let program = Program::parse("f(a,b)=max(a,b+1)").expect("parses");
        assert_eq!(sentence(&program.body), "the larger of a and the sum of b and 1");
    }
}
