//! Programs drawn by chance, and sentences that ask for them. Which programs are kept for judging hangs on what they give alone, so that
//! nothing that is learned from, whoever draws it, has one of them, nor another that does the same.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::mutate::probes;
use super::run::{Limits, evaluate};
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

/// What a program gives on all probes, as one number: programs that do the same have the same, whether or not they name a parameter
/// that they do not use.
pub fn behaviour(program: &Program) -> u64 {
    let grid = program.parameters.max(2);
    let given = probes(grid).into_iter().map(|call| {
        // What has no value, such as a sum of too many parts, has none in all programs that do the same.
        evaluate(program, &call[..program.parameters], Limits::default()).unwrap_or(i64::MIN)
    });
    // FNV-1a; only has to scatter.
    given.flat_map(i64::to_le_bytes).fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether a program is kept for judging; of programs that do the same, all are or none is.
pub fn is_kept(program: &Program) -> bool {
    (behaviour(program) >> 20).is_multiple_of(KEPT)
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
        let does = |text: &String| behaviour(&Program::parse(text).expect(text));
        let learned: std::collections::HashSet<u64> = texts.iter().map(does).collect();
        assert!(kept.iter().all(|text| !learned.contains(&does(text))));
        texts.sort();
        texts.dedup();
        assert!(texts.len() > 60, "{}", texts.len());
        let program = Program::parse("f(a,b)=max(a,b+1)").expect("parses");
        assert_eq!(sentence(&program.body), "the larger of a and the sum of b and 1");
    }
    #[test]
    fn programs_that_do_the_same_stand_on_the_same_side() {
        let parse = |text: &str| Program::parse(text).expect(text);
        let same = [
            ["f(a,b)=max(a,b)", "f(a,b)=max(b,a)"],
            ["f(a,b)=a+2*b", "f(a,b)=b+(a+b)"],
            ["f(a)=a+a", "f(a)=2*a"],
            ["f(a)=abs(a)", "f(a)=a*1"],
            ["f(a)=a+1", "f(a,b)=a+1+b-b"],
        ];
        for [one, other] in same {
            assert_eq!(behaviour(&parse(one)), behaviour(&parse(other)), "{one} {other}");
        }
        let differ = ["f(a,b)=max(a,b)", "f(a,b)=min(a,b)", "f(a,b)=a-b", "f(a,b)=b-a", "f(a)=a", "f(a)=a+1"];
        let all: std::collections::HashSet<u64> = differ.iter().map(|text| behaviour(&parse(text))).collect();
        assert_eq!(all.len(), differ.len());
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let shape = Shape { operators: &Operator::ALL, abs: true, least: 1, most: 2 };
        let mut sides = [std::collections::HashSet::new(), std::collections::HashSet::new()];
        for at in 0..2000 {
            sides[at % 2].insert(behaviour(&program(&mut random, shape, at % 2 == 1)));
        }
        assert!(sides[0].is_disjoint(&sides[1]));
        assert!(sides[1].len() > 40 && sides[0].len() > sides[1].len(), "{:?}", sides.map(|it| it.len()));
    }
}
