//! Programs with one fault: another operator, another number, another variable.

use super::run::{Limits, evaluate};
use super::syntax::{Expr, Operator, PARAMETERS, Program};

/// Values that parameters take where functions are told apart.
pub const PROBED: std::ops::RangeInclusive<i64> = 0..=4;

/// All calls that functions of so many parameters are told apart by.
pub fn probes(parameters: usize) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for _ in 0..parameters {
        all = all.iter().flat_map(|call| PROBED.map(|value| [call.as_slice(), &[value]].concat())).collect();
    }
    all
}

/// Whether two functions give the same on all probes.
pub fn same(one: &Program, other: &Program) -> bool {
    one.parameters == other.parameters
        && probes(one.parameters).iter().all(|call| {
            let give = |program| evaluate(program, call, Limits::default());
            give(one) == give(other)
        })
}

/// All programs with one fault that shows on a probe.
pub fn mutants(program: &Program) -> Vec<Program> {
    let mut found: Vec<Program> = faults(&program.body, program.parameters)
        .into_iter()
        .map(|body| Program { parameters: program.parameters, body })
        .filter(|mutant| !same(program, mutant))
        .collect();
    found.dedup();
    found
}

/// An expression with one fault, in all ways.
fn faults(of: &Expr, parameters: usize) -> Vec<Expr> {
    let inside = |part: &Expr, whole: &dyn Fn(Expr) -> Expr| -> Vec<Expr> {
        faults(part, parameters).into_iter().map(whole).collect()
    };
    match of {
        Expr::Number(number) => vec![Expr::Number(number + 1), Expr::Number(number - 1)],
        Expr::Variable(name) => {
            let others = PARAMETERS[..parameters].iter().filter(|it| *it != name);
            others.map(|it| Expr::Variable(*it)).collect()
        }
        Expr::Abs(part) => {
            let mut all = vec![part.as_ref().clone()];
            all.extend(inside(part, &|part| Expr::Abs(Box::new(part))));
            all
        }
        Expr::Pair(operator, left, right) => {
            let others = Operator::ALL.into_iter().filter(|it| it != operator);
            let mut all: Vec<Expr> = others.map(|it| Expr::Pair(it, left.clone(), right.clone())).collect();
            all.extend(inside(left, &|part| Expr::Pair(*operator, Box::new(part), right.clone())));
            all.extend(inside(right, &|part| Expr::Pair(*operator, left.clone(), Box::new(part))));
            all
        }
        Expr::Sum(to, part) => {
            let mut all = inside(to, &|to| Expr::Sum(Box::new(to), part.clone()));
            all.extend(inside(part, &|part| Expr::Sum(to.clone(), Box::new(part))));
            all
        }
        Expr::If { equal, left, right, then, other } => {
            let make = |equal: bool, parts: [&Expr; 4]| {
                let [left, right, then, other] = parts.map(|it| Box::new(it.clone()));
                Expr::If { equal, left, right, then, other }
            };
            let parts = [left.as_ref(), right.as_ref(), then.as_ref(), other.as_ref()];
            let mut all = vec![make(!equal, parts), make(*equal, [parts[0], parts[1], parts[3], parts[2]])];
            for at in 0..4 {
                all.extend(faults(parts[at], parameters).into_iter().map(|fault| {
                    let mut parts = parts;
                    parts[at] = &fault;
                    make(*equal, parts)
                }));
            }
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_have_one_fault_that_shows() {
        let program = Program::parse("f(a,b)=a+2*b").expect("parses");
        let texts: Vec<String> = mutants(&program).iter().map(Program::to_string).collect();
        for text in ["f(a,b)=a-2*b", "f(a,b)=a+3*b", "f(a,b)=b+2*b", "f(a,b)=a+(2+b)", "f(a,b)=a+2*a"] {
            assert!(texts.iter().any(|it| it == text), "{text} of {texts:?}");
        }
        assert!(mutants(&program).iter().all(|it| !same(it, &program)));
        // abs of what is never negative is no fault.
        let program = Program::parse("f(a)=abs(a)").expect("parses");
        assert!(mutants(&program).is_empty(), "{:?}", mutants(&program));
    }
}
