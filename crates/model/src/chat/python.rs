//! Python's `json.dumps` and `strftime`, whose exact output models were trained on.

use serde_json::{Number, Value};

/// The arguments of `json.dumps`.
#[derive(Default)]
pub(super) struct JsonStyle {
    /// Whether characters beyond ASCII are escaped.
    pub(super) ascii: bool,
    /// What a level is indented by; `None` for one line.
    pub(super) indent: Option<String>,
    /// Between items, and between key and value.
    pub(super) separators: Option<(String, String)>,
    /// Whether keys are sorted.
    pub(super) sort_keys: bool,
}

/// `json.dumps(value, ...)`.
pub(super) fn dumps(value: &Value, style: &JsonStyle) -> String {
    let mut out = String::new();
    // With an indent the line end follows the comma, so Python's default drops the space there.
    let default = if style.indent.is_some() { (",", ": ") } else { (", ", ": ") };
    let separators = style.separators.as_ref().map_or(default, |(item, key)| (item.as_str(), key.as_str()));
    write(value, style, separators, 0, &mut out);
    out
}

fn write(value: &Value, style: &JsonStyle, separators: (&str, &str), level: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_text(text, style.ascii, out),
        Value::Array(items) => {
            let items = items.iter().map(|item| (None, item)).collect();
            write_list(items, ['[', ']'], style, separators, level, out);
        }
        Value::Object(fields) => {
            let mut items: Vec<_> = fields.iter().map(|(key, value)| (Some(key), value)).collect();
            if style.sort_keys {
                items.sort_by_key(|(key, _)| *key);
            }
            write_list(items, ['{', '}'], style, separators, level, out);
        }
    }
}

fn write_list(
    items: Vec<(Option<&String>, &Value)>,
    brackets: [char; 2],
    style: &JsonStyle,
    separators: (&str, &str),
    level: usize,
    out: &mut String,
) {
    let new_line = |level: usize, out: &mut String| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..level).for_each(|_| out.push_str(indent));
        }
    };
    out.push(brackets[0]);
    for (i, (key, value)) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(separators.0);
        }
        new_line(level + 1, out);
        if let Some(key) = key {
            write_text(key, style.ascii, out);
            out.push_str(separators.1);
        }
        write(value, style, separators, level + 1, out);
    }
    if !items.is_empty() {
        new_line(level, out);
    }
    out.push(brackets[1]);
}

fn write_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || ascii && !(' '..='~').contains(&c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_text(float),
        _ => number.to_string(),
    }
}

/// Python's `repr` of a float: the shortest digits that give it back, with an exponent from 1e16 on and below 1e-4.
fn float_text(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if (-4..16).contains(&exponent) => {
            let plain = format!("{value}");
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `datetime.strftime` of a time in seconds since 1970, in UTC and English.
pub(super) fn strftime(format: &str, unix_seconds: i64) -> Result<String, String> {
    let (days, second) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = (days + 4).rem_euclid(7) as usize;
    let day_of_year = days - days_to(year, 1, 1) + 1;
    let half_day = if hour % 12 == 0 { 12 } else { hour % 12 };
    let month_name = MONTHS[(month - 1) as usize];
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = rest.next();
        // "%-d" leaves out the leading zero.
        let unpadded = directive == Some('-');
        if unpadded {
            directive = rest.next();
        }
        let number = |value: i64, width: usize| {
            if unpadded { value.to_string() } else { format!("{value:0width$}") }
        };
        let text = match directive {
            Some('Y') => number(year, 4),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:2}"),
            Some('j') => number(day_of_year, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(half_day, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('f') => "000000".into(),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('A') => DAYS[weekday].into(),
            Some('a') => DAYS[weekday][..3].into(),
            Some('w') => weekday.to_string(),
            Some('u') => (if weekday == 0 { 7 } else { weekday }).to_string(),
            Some('F') => format!("{year:04}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('R') => format!("{hour:02}:{minute:02}"),
            Some('D') => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
            // A time without a zone has no name for it.
            Some('Z' | 'z') => String::new(),
            Some('%') => "%".into(),
            other => {
                return Err(format!("strftime_now knows no %{}", other.map_or(String::new(), String::from)));
            }
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // No year is off by more than one from this estimate.
    let mut year = 1970 + days.div_euclid(365);
    while days_to(year, 1, 1) > days {
        year -= 1 + (days_to(year, 1, 1) - days) / 366;
    }
    let month = (1..=12).rev().find(|month| days_to(year, *month, 1) <= days).unwrap_or(1);
    (year, month, days - days_to(year, month, 1) + 1)
}

/// The day, counted from 1970-01-01, of a date.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let past = year - 1;
    let leap_days = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 477;
    let in_year = BEFORE[(month - 1) as usize] + i64::from(leap && month > 2) + day - 1;
    (year - 1970) * 365 + leap_days + in_year
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_python_does() {
        let value = json!({"b": [1, 2.0, 1e16, 0.0001, 1.5e-5, -3], "a": {"é<\u{1F600}": "\"\\\n\u{1}\u{7f}"}, "c": []});
        assert_eq!(
            dumps(&value, &JsonStyle::default()),
            "{\"b\": [1, 2.0, 1e+16, 0.0001, 1.5e-05, -3], \"a\": {\"é<\u{1F600}\": \"\\\"\\\\\\n\\u0001\u{7f}\"}, \"c\": []}"
        );
        let style = JsonStyle {
            ascii: true,
            sort_keys: true,
            separators: Some((",".into(), ":".into())),
            indent: None,
        };
        assert_eq!(
            dumps(&value, &style),
            "{\"a\":{\"\\u00e9<\\ud83d\\ude00\":\"\\\"\\\\\\n\\u0001\\u007f\"},\"b\":[1,2.0,1e+16,0.0001,1.5e-05,-3],\"c\":[]}"
        );
        let style = JsonStyle { indent: Some("  ".into()), ..JsonStyle::default() };
        assert_eq!(dumps(&json!({"a": [1, {}]}), &style), "{\n  \"a\": [\n    1,\n    {}\n  ]\n}");
    }

    #[test]
    fn dates_are_right() {
        // 2026-11-23 18:02:40, a Monday, the 327th day.
        assert_eq!(
            strftime("%A %a %d %b %B %Y %H:%M:%S %I %p %j %y %-d%%", 1_795_456_960).unwrap(),
            "Monday Mon 23 Nov November 2026 18:02:40 06 PM 327 26 23%"
        );
        for (days, date) in
            [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29"), (47_540, "2100-02-28")]
        {
            assert_eq!(strftime("%F", days * 86_400).unwrap(), date);
        }
        assert_eq!(strftime("%F", 47_541 * 86_400).unwrap(), "2100-03-01");
        assert!(strftime("%Q", 0).unwrap_err().contains("%Q"));
        assert!(strftime("%", 0).is_err());
    }
}
