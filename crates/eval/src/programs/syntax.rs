//! Trees of programs, reading and writing.

use std::fmt;

/// Parameters that a function may have.
pub const PARAMETERS: [char; 3] = ['a', 'b', 'c'];
/// What `sum` counts.
pub const COUNTER: char = 'i';
/// Brackets in brackets, at most.
const DEEPEST: usize = 24;

/// What two values make, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its sign
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Min,
    Max,
}

impl Operator {
    /// All of them.
    pub const ALL: [Operator; 5] =
        [Operator::Add, Operator::Subtract, Operator::Multiply, Operator::Min, Operator::Max];

    /// How it binds: sums less than products; calls need no brackets.
    fn level(self) -> u8 {
        match self {
            Operator::Add | Operator::Subtract => 1,
            Operator::Multiply => 2,
            Operator::Min | Operator::Max => 3,
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A number.
    Number(i64),
    /// A parameter, or the counter of a sum.
    Variable(char),
    /// Two values.
    Pair(Operator, Box<Expr>, Box<Expr>),
    /// Without its sign.
    Abs(Box<Expr>),
    /// The third if the first is below the second (or equals it), else the fourth.
    If {
        /// Whether equality is asked for.
        equal: bool,
        /// What is compared.
        left: Box<Expr>,
        /// With what.
        right: Box<Expr>,
        /// If so.
        then: Box<Expr>,
        /// If not.
        other: Box<Expr>,
    },
    /// The sum of the second over the counter, from 1 to the first.
    Sum(Box<Expr>, Box<Expr>),
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    /// How many of [`PARAMETERS`] it has.
    pub parameters: usize,
    /// What it gives.
    pub body: Expr,
}

impl Expr {
    /// Two values.
    pub fn pair(operator: Operator, left: Expr, right: Expr) -> Expr {
        Expr::Pair(operator, Box::new(left), Box::new(right))
    }

    fn level(&self) -> u8 {
        match self {
            Expr::Pair(operator, ..) => operator.level(),
            _ => 3,
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, side: &Expr, least: u8| {
            if side.level() < least { write!(f, "({side})") } else { write!(f, "{side}") }
        };
        match self {
            Expr::Number(number) => write!(f, "{number}"),
            Expr::Variable(name) => write!(f, "{name}"),
            Expr::Abs(of) => write!(f, "abs({of})"),
            Expr::Sum(to, of) => write!(f, "sum({to},{of})"),
            Expr::If { equal, left, right, then, other } => {
                write!(f, "if({left}{}{right},{then},{other})", if *equal { '=' } else { '<' })
            }
            Expr::Pair(operator, left, right) => {
                let sign = match operator {
                    Operator::Min => return write!(f, "min({left},{right})"),
                    Operator::Max => return write!(f, "max({left},{right})"),
                    Operator::Add => '+',
                    Operator::Subtract => '-',
                    Operator::Multiply => '*',
                };
                side(f, left, operator.level())?;
                write!(f, "{sign}")?;
                side(f, right, operator.level() + 1)
            }
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = PARAMETERS[..self.parameters].iter().map(char::to_string).collect();
        write!(f, "f({})={}", names.join(","), self.body)
    }
}

impl Program {
    /// Reads a program; spaces do not count.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn parse(text: &str) -> Result<Program, String> {
        let mut reader = Reader::new(text);
        reader.expect("f(")?;
        let mut parameters = 0;
        loop {
            let name = reader.next().ok_or("the parameters have no end")?;
            if Some(&name) != PARAMETERS.get(parameters) {
                return Err(format!("parameter {} can't be {name:?}", parameters + 1));
            }
            parameters += 1;
            match reader.next() {
                Some(',') => {}
                Some(')') => break,
                _ => return Err("parameters are parted by commas".into()),
            }
        }
        reader.expect("=")?;
        reader.parameters = parameters;
        let body = reader.sum(0)?;
        reader.end()?;
        Ok(Program { parameters, body })
    }
}

/// Reads characters without spaces.
pub(super) struct Reader {
    left: Vec<char>,
    at: usize,
    parameters: usize,
    /// Inside how many sums.
    sums: usize,
}

impl Reader {
    pub fn new(text: &str) -> Reader {
        let left = text.chars().filter(|c| !c.is_whitespace()).collect();
        Reader { left, at: 0, parameters: 0, sums: 0 }
    }

    pub fn peek(&self) -> Option<char> {
        self.left.get(self.at).copied()
    }

    pub fn next(&mut self) -> Option<char> {
        let found = self.peek();
        self.at += usize::from(found.is_some());
        found
    }

    pub fn takes(&mut self, text: &str) -> bool {
        let wanted: Vec<char> = text.chars().collect();
        let there = self.left[self.at..].starts_with(&wanted);
        self.at += if there { wanted.len() } else { 0 };
        there
    }

    pub fn expect(&mut self, text: &str) -> Result<(), String> {
        match self.takes(text) {
            true => Ok(()),
            false => Err(format!("{text:?} is missing at character {}", self.at + 1)),
        }
    }

    pub fn end(&self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(c) => Err(format!("{c:?} at character {} belongs to nothing", self.at + 1)),
        }
    }

    /// A number, with a sign if it has one.
    pub fn number(&mut self) -> Result<i64, String> {
        let start = self.at;
        self.takes("-");
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let text: String = self.left[start..self.at].iter().collect();
        text.parse().map_err(|_| format!("{text:?} at character {} is no number", start + 1))
    }

    fn sum(&mut self, depth: usize) -> Result<Expr, String> {
        let mut left = self.product(depth)?;
        loop {
            let operator = if self.takes("+") {
                Operator::Add
            } else if self.takes("-") {
                Operator::Subtract
            } else {
                return Ok(left);
            };
            left = Expr::pair(operator, left, self.product(depth)?);
        }
    }

    fn product(&mut self, depth: usize) -> Result<Expr, String> {
        let mut left = self.factor(depth)?;
        while self.takes("*") {
            left = Expr::pair(Operator::Multiply, left, self.factor(depth)?);
        }
        Ok(left)
    }

    fn factor(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > DEEPEST {
            return Err(format!("brackets are deeper than {DEEPEST}"));
        }
        let inner = depth + 1;
        if self.takes("(") {
            let found = self.sum(inner)?;
            self.expect(")")?;
            return Ok(found);
        }
        for (name, operator) in [("min(", Operator::Min), ("max(", Operator::Max)] {
            if self.takes(name) {
                let left = self.sum(inner)?;
                self.expect(",")?;
                let right = self.sum(inner)?;
                self.expect(")")?;
                return Ok(Expr::pair(operator, left, right));
            }
        }
        if self.takes("abs(") {
            let of = self.sum(inner)?;
            self.expect(")")?;
            return Ok(Expr::Abs(Box::new(of)));
        }
        if self.takes("sum(") {
            let to = self.sum(inner)?;
            self.expect(",")?;
            self.sums += 1;
            let of = self.sum(inner)?;
            self.sums -= 1;
            self.expect(")")?;
            return Ok(Expr::Sum(Box::new(to), Box::new(of)));
        }
        if self.takes("if(") {
            let left = Box::new(self.sum(inner)?);
            let equal = match self.next() {
                Some('<') => false,
                Some('=') => true,
                _ => return Err("an if compares by < or =".into()),
            };
            let right = Box::new(self.sum(inner)?);
            self.expect(",")?;
            let then = Box::new(self.sum(inner)?);
            self.expect(",")?;
            let other = Box::new(self.sum(inner)?);
            self.expect(")")?;
            return Ok(Expr::If { equal, left, right, then, other });
        }
        match self.peek() {
            Some(c) if c.is_ascii_digit() || c == '-' => Ok(Expr::Number(self.number()?)),
            Some(c) if PARAMETERS[..self.parameters].contains(&c) || (c == COUNTER && self.sums > 0) => {
                self.at += 1;
                Ok(Expr::Variable(c))
            }
            Some(c) => Err(format!("{c:?} at character {} is no value", self.at + 1)),
            None => Err("the end comes too early".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_written_as_they_are_read() {
        for text in [
            "f(a)=a",
            "f(a,b)=a-(b-1)",
            "f(a,b)=(a+b)*2-max(a,abs(b-3))",
            "f(a,b,c)=if(a<b,sum(c,i*a),if(a=b,0,-1))",
        ] {
            assert_eq!(Program::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Program::parse("f( a , b ) = a + 1 2").expect("spaces").to_string(), "f(a,b)=a+12");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let deep = format!("f(a)={}a{}", "(".repeat(40), ")".repeat(40));
        for text in [
            "",
            "f(b)=b",
            "f(a)=b",
            "f(a)=i",
            "f(a)=a+",
            "f(a)=(a",
            "f(a)=if(a,1,2)",
            "f(a)=a)",
            "f()=1",
            "f(a)=99999999999999999999",
            &deep,
        ] {
            assert!(Program::parse(text).is_err(), "{text}");
        }
    }
}
