//! What a call gives, within a limit of steps.

use super::syntax::{COUNTER, Expr, Operator, PARAMETERS, Program};

/// What a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Values that are looked at, of all kinds.
    pub steps: u32,
    /// Values stay below this in size.
    pub size: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps: 10_000, size: 1_000_000_000 }
    }
}

/// Why a call gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It takes too long.
    #[error("the call takes more steps than it may")]
    Steps,
    /// A value is too large.
    #[error("a value is larger than it may be")]
    Size,
    /// Not as many values as parameters.
    #[error("the call has another number of values than the function has parameters")]
    Arguments,
}

/// What a call gives.
///
/// # Errors
/// If it exceeds the limits, or has another number of values than the function takes.
pub fn evaluate(program: &Program, values: &[i64], limits: Limits) -> Result<i64, Failure> {
    if values.len() != program.parameters {
        return Err(Failure::Arguments);
    }
    Run { values, counter: Vec::new(), left: limits.steps, size: limits.size }.value(&program.body)
}

struct Run<'v> {
    values: &'v [i64],
    /// Of the sums around, the innermost last.
    counter: Vec<i64>,
    left: u32,
    size: i64,
}

impl Run<'_> {
    fn value(&mut self, of: &Expr) -> Result<i64, Failure> {
        self.left = self.left.checked_sub(1).ok_or(Failure::Steps)?;
        let found = match of {
            Expr::Number(number) => Some(*number),
            Expr::Variable(COUNTER) => self.counter.last().copied(),
            Expr::Variable(name) => {
                let place = PARAMETERS.iter().position(|known| known == name);
                Some(*place.and_then(|place| self.values.get(place)).ok_or(Failure::Arguments)?)
            }
            Expr::Abs(of) => self.value(of)?.checked_abs(),
            Expr::Pair(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                match operator {
                    Operator::Add => left.checked_add(right),
                    Operator::Subtract => left.checked_sub(right),
                    Operator::Multiply => left.checked_mul(right),
                    Operator::Min => Some(left.min(right)),
                    Operator::Max => Some(left.max(right)),
                }
            }
            Expr::If { equal, left, right, then, other } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                let holds = if *equal { left == right } else { left < right };
                Some(self.value(if holds { then } else { other })?)
            }
            Expr::Sum(to, of) => {
                let to = self.value(to)?;
                let mut sum: i64 = 0;
                for at in 1..=to {
                    self.counter.push(at);
                    let value = self.value(of);
                    self.counter.pop();
                    sum = sum.checked_add(value?).ok_or(Failure::Size)?;
                }
                Some(sum)
            }
        };
        found.filter(|it| it.checked_abs().is_some_and(|it| it <= self.size)).ok_or(Failure::Size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, values: &[i64]) -> Result<i64, Failure> {
        evaluate(&Program::parse(text).expect(text), values, Limits::default())
    }

    #[test]
    fn calls_give_what_they_should() {
        assert_eq!(call("f(a,b)=max(a,2*b)-1", &[3, 4]), Ok(7));
        assert_eq!(call("f(a,b)=min(a,b)-(b-1)*3", &[3, 4]), Ok(-6));
        assert_eq!(call("f(a)=if(a<3,a,if(a=3,7,abs(1-a)))", &[2]), Ok(2));
        assert_eq!(call("f(a)=if(a<3,a,if(a=3,7,abs(1-a)))", &[3]), Ok(7));
        assert_eq!(call("f(a)=if(a<3,a,if(a=3,7,abs(1-a)))", &[9]), Ok(8));
        // Σᵢ₌₁⁴ Σⱼ₌₁ⁱ j = 1 + 3 + 6 + 10.
        assert_eq!(call("f(a)=sum(a,sum(i,i))", &[4]), Ok(20));
        assert_eq!(call("f(a)=sum(a,1)", &[-5]), Ok(0));
    }

    #[test]
    fn every_run_ends_and_values_stay_small() {
        assert_eq!(call("f(a)=sum(a,1)", &[1_000_000_000]), Err(Failure::Steps));
        assert_eq!(call("f(a)=sum(a,sum(a,sum(a,i)))", &[999]), Err(Failure::Steps));
        assert_eq!(call("f(a)=a*a", &[100_000]), Err(Failure::Size));
        assert_eq!(call("f(a)=a", &[1, 2]), Err(Failure::Arguments));
    }
}
