//! How the best density grows with time: `ln ρ = A t + B` over models that were the densest when they came out.

use ounce_train::laws::{bootstrap, least_squares};
use ounce_train::{Error, Result};
use serde::Serialize;

/// The law over time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// `A`, a day.
    pub per_day: f64,
    /// The days in which density doubles; negative if it halves.
    pub doubling_days: f64,
    /// The share of the variance that the line explains.
    pub r_squared: f64,
    /// Models on the frontier.
    pub models: usize,
    /// Where the middle 95 % of bootstrap samples have `A`.
    pub per_day_interval: Option<bootstrap::Interval>,
}

/// The places of models denser than all before them, by date.
pub fn frontier(dated: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dated.len()).collect();
    order.sort_by(|&a, &b| dated[a].0.total_cmp(&dated[b].0).then(dated[b].1.total_cmp(&dated[a].1)));
    let mut best = f64::NEG_INFINITY;
    order.retain(|&at| {
        let denser = dated[at].1 > best;
        best = best.max(dated[at].1);
        denser
    });
    order
}

/// Fits the frontier of models, each with its day and density.
///
/// # Errors
/// If fewer than three models are on the frontier, or a density is not above 0.
pub fn trend(dated: &[(f64, f64)], samples: usize, seed: u64) -> Result<Trend> {
    if dated.iter().any(|(_, density)| !(*density > 0.0)) {
        return Err(Error::Fit("a density is not above 0".to_string()));
    }
    let best: Vec<(f64, f64)> = frontier(dated).into_iter().map(|at| dated[at]).collect();
    if best.len() < 3 {
        return Err(Error::Fit(format!(
            "a law over time needs three models at least that were the densest of their day, found {}",
            best.len()
        )));
    }
    let line = |points: &[(f64, f64)]| {
        let first = points[0].0;
        let rows: Vec<Vec<f64>> = points.iter().map(|(day, _)| vec![1.0, day - first]).collect();
        let values: Vec<f64> = points.iter().map(|(_, density)| density.ln()).collect();
        least_squares::fit(&rows, &values)
    };
    let fit = line(&best)?;
    let per_day = fit.coefficients[1];
    let resampled = |points: &[(f64, f64)]| Some(vec![line(points).ok()?.coefficients[1]]);
    let per_day_interval = bootstrap::intervals(&best, samples, 0.95, seed, resampled).map(|it| it[0]);
    Ok(Trend {
        per_day,
        doubling_days: std::f64::consts::LN_2 / per_day,
        r_squared: fit.r_squared,
        models: best.len(),
        per_day_interval,
    })
}

/// Days from 1970-01-01 to a date `YYYY-MM-DD` of the Gregorian calendar.
///
/// # Errors
/// A sentence, if it is no date.
pub fn days(date: &str) -> Result<f64, String> {
    let wrong = || format!("{date:?} is no date; write it as 2024-11-27");
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return Err(wrong()) };
    let lengths = year.len() == 4 && month.len() == 2 && day.len() == 2;
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|it| it.is_ascii_digit()));
    let parsed = number(year).zip(number(month)).zip(number(day)).filter(|_| lengths);
    let ((year, month), day) = parsed.ok_or_else(wrong)?;
    let leap = |year: u16| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = months.get(usize::from(month).wrapping_sub(1)).copied().ok_or_else(wrong)?;
    if !(1..=length).contains(&day) {
        return Err(wrong());
    }
    // Leap days before the year, counted from year 0.
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let year = i64::from(year);
    let years = if year >= 1 { 365 * year + leaps(year - 1) + 1 } else { 0 };
    let epoch = 365 * 1970 + leaps(1969) + 1;
    let before: u16 = months[..usize::from(month) - 1].iter().sum();
    Ok((years - epoch + i64::from(before) + i64::from(day) - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        // `date -u -d 2024-11-27 +%s` divided by 86400.
        for (date, expected) in
            [("1970-01-01", 0.0), ("1969-12-31", -1.0), ("2000-02-29", 11_016.0), ("2024-11-27", 20_054.0)]
        {
            assert_eq!(days(date), Ok(expected), "{date}");
        }
        for date in ["2023-02-29", "2024-13-01", "2024-1-1", "24-01-01", "", "2024-00-10", "2024-01-+1"] {
            assert!(days(date).is_err(), "{date}");
        }
    }

    #[test]
    fn the_frontier_s_slope_is_found() {
        let mut dated = Vec::new();
        for at in 0..12 {
            let day = 30.0 * f64::from(at);
            dated.push((day, f64::exp(0.007 * day)));
            dated.push((day + 1.0, 0.3 * f64::exp(0.007 * day)));
        }
        let found = trend(&dated, 100, 1).expect("a trend");
        assert_eq!(found.models, 12);
        assert!(
            (found.per_day - 0.007).abs() < 1e-9 && (found.doubling_days - 99.02).abs() < 0.01,
            "{found:?}"
        );
        assert!(trend(&dated[..2], 100, 1).is_err());
    }
}
