//! Tests of a function, as a list of what calls give: `f(2,3)=5;f(0,1)=1`.

use super::mutate::mutants;
use super::run::{Limits, evaluate};
use super::syntax::{Program, Reader};

/// What a call is said to give.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Assertion {
    /// The call's values.
    pub values: Vec<i64>,
    /// What it is said to give.
    pub gives: i64,
}

/// Tests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Suite(pub Vec<Assertion>);

/// Assertions of a suite, at most.
const MOST: usize = 64;

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, Assertion { values, gives }) in self.0.iter().enumerate() {
            let values: Vec<String> = values.iter().map(i64::to_string).collect();
            write!(f, "{}f({})={gives}", if at > 0 { ";" } else { "" }, values.join(","))?;
        }
        Ok(())
    }
}

/// How good tests of a function are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// Whether they can be read, and their calls fit the function.
    pub valid: bool,
    /// Assertions.
    pub assertions: usize,
    /// Those that are true.
    pub right: usize,
    /// Faulty programs.
    pub mutants: usize,
    /// Those that a true assertion tells from the right one.
    pub killed: usize,
}

impl Suite {
    /// Reads tests.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn parse(text: &str) -> Result<Suite, String> {
        let mut reader = Reader::new(text);
        let mut all = Vec::new();
        loop {
            reader.expect("f(")?;
            let mut values = vec![reader.number()?];
            while reader.takes(",") {
                values.push(reader.number()?);
            }
            reader.expect(")=")?;
            all.push(Assertion { values, gives: reader.number()? });
            if all.len() > MOST {
                return Err(format!("there are more than {MOST} tests"));
            }
            if !reader.takes(";") {
                reader.end()?;
                return Ok(Suite(all));
            }
        }
    }

    /// Of what a program gives.
    pub fn of(program: &Program, calls: impl IntoIterator<Item = Vec<i64>>) -> Suite {
        let given = calls.into_iter().filter_map(|values| {
            let gives = evaluate(program, &values, Limits::default()).ok()?;
            Some(Assertion { values, gives })
        });
        Suite(given.collect())
    }

    /// The text of tests, scored on the function that they are of. False assertions are counted and thrown away: what is left is
    /// green, and kills a mutant if the mutant gives something else.
    pub fn score(text: &str, program: &Program) -> Score {
        let faulty = mutants(program);
        let mut score = Score { mutants: faulty.len(), ..Score::default() };
        let Ok(suite) = Suite::parse(text) else { return score };
        score.assertions = suite.0.len();
        score.valid = suite.0.iter().all(|it| it.values.len() == program.parameters);
        if !score.valid {
            return score;
        }
        let holds =
            |of: &Program, it: &Assertion| evaluate(of, &it.values, Limits::default()) == Ok(it.gives);
        let right: Vec<&Assertion> = suite.0.iter().filter(|it| holds(program, it)).collect();
        score.right = right.len();
        score.killed = faulty.iter().filter(|mutant| right.iter().any(|it| !holds(mutant, it))).count();
        score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_and_scored() {
        let program = Program::parse("f(a,b)=a+b").expect("parses");
        let suite = Suite::of(&program, [vec![2, 3], vec![0, 1]]);
        assert_eq!(suite.to_string(), "f(2,3)=5;f(0,1)=1");
        assert_eq!(Suite::parse("f(2,3)=5; f(0,1)=1"), Ok(suite));
        for text in ["", "f(2,3)", "f(2,3)=", "f(2,3)=5;", "f(2,3)=5 x", "g(1)=1"] {
            assert!(Suite::parse(text).is_err(), "{text}");
        }
        // a−b, a·b, the least and the greatest of them, b+b, a+a: six faults. 2 and 2 make 4 in sum and product.
        let score = Suite::score("f(2,2)=4;f(1,1)=5", &program);
        assert_eq!((score.valid, score.assertions, score.right, score.mutants), (true, 2, 1, 6));
        assert_eq!(score.killed, 3);
        assert_eq!(Suite::score("f(2,3)=5;f(0,1)=1", &program).killed, 6);
        assert!(!Suite::score("f(2)=4", &program).valid);
    }
}
