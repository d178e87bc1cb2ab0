//! The report as one page that needs nothing else: no script, no font, no request.

use std::fmt::Write as _;

use ounce_model::account::sizes::GroupSize;
use ounce_plan::forecast::Phase;
use ounce_plan::search::{reason, told};

use super::picture::{Point, Scatter};
use super::report::{Report, met};
use crate::plot::svg;
use crate::units::{self, time};

const STYLE: &str = include_str!("report.css");

/// A text within HTML; its lines stay lines.
pub fn escape(text: &str) -> String {
    text.split('\n').map(svg::escape).collect::<Vec<_>>().join("\n")
}

/// A table; cells are escaped. The first column is text, the others are numbers.
fn table(head: &[&str], rows: impl Iterator<Item = (Vec<String>, &'static str)>) -> String {
    // What is said at the end is text again.
    let said = head.last().is_some_and(|it| ["met", "why not"].contains(it));
    let class = if said { " class=\"said\"" } else { "" };
    let mut out = format!("<div class=\"wide\"><table{class}><thead><tr>");
    head.iter().for_each(|it| {
        let _ = write!(out, "<th>{}</th>", escape(it));
    });
    out += "</tr></thead><tbody>";
    for (cells, class) in rows {
        let _ = write!(out, "<tr class=\"{class}\">");
        cells.iter().for_each(|it| {
            let _ = write!(out, "<td>{}</td>", escape(it));
        });
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

fn section(title: &str, note: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    let note =
        if note.is_empty() { String::new() } else { format!("<p class=\"note\">{}</p>", escape(note)) };
    format!("<section><h2>{}</h2>{note}{body}</section>", escape(title))
}

/// The whole page.
pub fn page(report: &Report, recipe: &str) -> String {
    let verdict = if report.met { ("met", "meets its budget") } else { ("missed", "misses its budget") };
    let mut body = format!(
        "<header><p class=\"brand\">ounce fit</p><h1>{} <span class=\"{}\">{}</span></h1><p>{} parameters, from <code>{}</code> \
         to <code>{}</code>. Asked for: {}.</p></header>",
        escape(name(&report.target)),
        verdict.0,
        verdict.1,
        units::count(report.parameters),
        escape(&report.model),
        escape(&report.target),
        escape(&report.asked.told())
    );
    body += &tiles(report);
    body += &section("Promised and measured", "", &promised(report));
    body += &section(
        "Quality against memory",
        "Every candidate whose loss is known. Filled: nothing beats it in memory, time and loss. Hold the pointer over a point for its name.",
        &quality_picture(report),
    );
    body += &section("Candidates", &trial_note(report), &candidates(report));
    body += &section("Where the bytes are", "", &bars(report));
    body += &section(
        "Roofline of the result",
        "What each operator reaches by the forecast, and what this machine allows: the slope is memory, the flat lines are arithmetic.",
        &roofline(report),
    );
    body += &section(
        "Error of each matrix",
        "Share of a matrix's output on calibration inputs that is now error, squared.",
        &matrices(report),
    );
    body += &section(
        "The same beginnings, continued",
        "The likeliest tokens, original and result.",
        &samples(report),
    );
    body += &section("Recipe", "", &format!("<pre>{}</pre>", escape(recipe)));
    body += &section("Machine and command", "", &machine(report));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><link rel=\"icon\" href=\"data:,\"><title>{}: ounce fit</title>\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        escape(name(&report.target))
    )
}

fn name(path: &str) -> &str {
    path.rsplit('/').find(|it| !it.is_empty()).unwrap_or(path)
}

/// The figures that people look for first.
fn tiles(report: &Report) -> String {
    let mut out = String::from("<div class=\"tiles\">");
    for row in &report.rows {
        let [before, _, measured, _] = &row.words;
        let times = row.before.zip(row.measured).filter(|it| it.1 > 0.0).map(|(a, b)| a / b);
        let note = times.map_or(String::new(), |it| match it >= 1.0 {
            true => format!("{it:.2}× less than {before}"),
            false => format!("{:.2}× more than {before}", 1.0 / it),
        });
        let _ = write!(
            out,
            "<div><p>{}</p><strong>{}</strong><p class=\"note\">{}</p></div>",
            escape(row.limit.name()),
            escape(measured),
            escape(&note)
        );
    }
    let _ = write!(
        out,
        "<div><p>KL to the original</p><strong>{:.4}</strong><p class=\"note\">{:.1} % same top token</p></div></div>",
        report.quality.mean_kl.value,
        report.quality.top1_agreement.value * 100.0
    );
    out
}

fn promised(report: &Report) -> String {
    let class = |kept: Option<bool>| match kept {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let costs = report.rows.iter().map(|row| {
        let [before, told, measured, budget] = row.words.clone();
        let off = row.error.map_or(String::new(), |it| format!("{:+.1} %", it * 100.0));
        let cells =
            vec![row.limit.name().to_owned(), before, told, measured, off, budget, met(row.met()).to_owned()];
        (cells, class(row.met()))
    });
    let quality = report.quality_rows().into_iter().map(|[name, before, told, after, budget]| {
        let kept = if budget.is_empty() { None } else { report.quality_met };
        (vec![name, before, told, after, String::new(), budget, met(kept).to_owned()], class(kept))
    });
    let head = ["", "original", "forecast", "measured", "forecast off by", "budget", "met"];
    table(&head, costs.chain(quality))
}

fn trial_note(report: &Report) -> String {
    format!(
        "Costs are forecast; losses come from trials on {} tokens where they were tried, else from sensitivities. Planned in {:.0} s.",
        report.plan.trial_tokens, report.plan.seconds
    )
}

fn candidates(report: &Report) -> String {
    let chosen = report.plan.chosen.map(|it| &report.plan.candidates[it]);
    let rows = report.plan.candidates.iter().enumerate().map(|(index, it)| {
        let own = report.plan.chosen == Some(index);
        let cells = vec![
            it.name.clone(),
            format!("{:.2}", it.bits_per_weight),
            units::bytes(it.costs.disk),
            units::bytes(it.costs.memory),
            time(it.costs.first_token),
            time(it.costs.per_token),
            it.expected.map_or("?".into(), |it| format!("{:.5}", it.kl)),
            it.expected.map_or(String::new(), |it| it.basis.name().into()),
            if own { "chosen".into() } else { reason(it, chosen, told) },
        ];
        (
            cells,
            if own {
                "chosen"
            } else if it.fits() {
                ""
            } else {
                "out"
            },
        )
    });
    let head =
        ["candidate", "bits", "file", "memory", "first token", "a token", "loss (KL)", "from", "why not"];
    table(&head, rows)
}

fn quality_picture(report: &Report) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let points = report.plan.candidates.iter().enumerate().filter_map(|(index, it)| {
        let kl = it.expected?.kl;
        let own = report.plan.chosen == Some(index);
        let class = match (own, it.on_front, it.fits()) {
            (true, ..) => "p own",
            (_, true, true) => "p front",
            (_, true, false) => "p front out",
            (_, false, true) => "p",
            _ => "p out",
        };
        let label = format!("{}: {}, KL {kl:.5}", it.name, units::bytes(it.costs.memory));
        Some(Point { x: mebibytes(it.costs.memory), y: kl, label, class, name: own.then(|| it.name.clone()) })
    });
    let measured = report.rows.iter().find(|it| it.limit == ounce_plan::budget::Limit::Memory);
    let measured = measured.and_then(|it| it.measured).map(|memory| Point {
        x: memory / f64::from(1 << 20),
        y: report.quality.mean_kl.value,
        label: "the result, measured on the test text".into(),
        class: "p result",
        name: None,
    });
    let limit = report.asked.budget.memory.map(|it| (mebibytes(it), "budget".to_owned()));
    Scatter {
        x_label: "memory, MiB",
        y_label: "KL to the original",
        points: points.chain(measured).collect(),
        lines: Vec::new(),
        log_x: false,
        log_y: true,
        limit_x: limit,
    }
    .svg()
}

fn roofline(report: &Report) -> String {
    let bandwidth = report.machine.bandwidth;
    let operators = report
        .forecast
        .operators
        .iter()
        .filter(|it| it.bytes > 0.0 && it.operations > 0.0 && it.seconds > 0.0);
    let points: Vec<Point> = operators
        .map(|it| {
            let (phase, class) = match it.phase {
                Phase::Prompt => ("prompt", "p front"),
                Phase::Token => ("token", "p own"),
            };
            let label = format!(
                "{phase}: {}, bound by {}, {}",
                it.operator.name(),
                it.bound.name(),
                time(it.seconds)
            );
            Point { x: it.intensity, y: it.operations / it.seconds / 1e9, label, class, name: None }
        })
        .collect();
    let ends = points.iter().map(|it| it.x).fold((0.5f64, 200.0f64), |(a, b), it| (a.min(it), b.max(it)));
    let lines = report.machine.peaks.iter().map(|(_, peak)| {
        let ridge = peak / bandwidth;
        let at = |x: f64| (x, (x * bandwidth).min(*peak) / 1e9);
        (vec![at(ends.0), at(ridge), at(ends.1.max(ridge))], "roof")
    });
    let lines = lines.collect();
    let legend = "<p class=\"note\"><span class=\"key front\"></span> prompt <span class=\"key own\"></span> token</p>";
    let svg = Scatter {
        x_label: "operations for a byte of weights or cache",
        y_label: "10⁹ operations a second",
        points,
        lines,
        log_x: true,
        log_y: true,
        limit_x: None,
    }
    .svg();
    if svg.is_empty() { svg } else { svg + legend }
}

/// Bytes by group of tensors, before and after, on one scale.
fn bars(report: &Report) -> String {
    let all = |sizes: &[GroupSize]| sizes.iter().map(|it| it.bytes).sum::<u64>();
    let most = all(&report.groups_before).max(all(&report.groups)).max(1);
    let mut out = String::new();
    for (what, sizes) in [("original", &report.groups_before), ("result", &report.groups)] {
        let _ = write!(out, "<div class=\"bar\"><p>{what}, {}</p><div>", units::bytes(all(sizes)));
        for it in sizes {
            let share = it.bytes as f64 / most as f64 * 100.0;
            let text = format!("{}, {}: {}", it.group.name(), it.dtype, units::bytes(it.bytes));
            let text = escape(&text);
            let shown = if share > 9.0 { escape(it.group.name()) } else { String::new() };
            let class = it.group.name().split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
            let _ = write!(
                out,
                "<i class=\"g-{class}\" style=\"width:{share:.2}%\" title=\"{text}\">{shown}</i>"
            );
        }
        out += "</div></div>";
    }
    let rows = report.groups.iter().map(|it| {
        let cells = vec![
            it.group.name().to_owned(),
            it.dtype.to_owned(),
            it.tensors.to_string(),
            units::count(it.parameters),
            units::bytes(it.bytes),
        ];
        (cells, "")
    });
    out + &table(&["group", "format", "tensors", "values", "bytes"], rows)
}

fn matrices(report: &Report) -> String {
    let known: Vec<_> = report.matrices.iter().filter_map(|it| Some((it, it.error?))).collect();
    let most = known.iter().map(|it| it.1).fold(0.0, f64::max);
    if !(most > 0.0) {
        return String::new();
    }
    let mut out = String::from("<div class=\"errors\">");
    for (it, error) in known {
        let _ = write!(
            out,
            "<p>{}</p><div><i style=\"width:{:.1}%\"></i></div><p>{:.3} %</p><p>{}</p>",
            escape(it.matrix.trim_end_matches(".weight")),
            error / most * 100.0,
            error * 100.0,
            it.dtype.name()
        );
    }
    out + "</div>"
}

fn samples(report: &Report) -> String {
    report.samples.iter().fold(String::new(), |mut out, it| {
        let _ = write!(
            out,
            "<div class=\"sample\"><p class=\"prompt\">{}</p><div><div><h3>original</h3><p>{}</p></div><div><h3>result</h3><p>{}</p></div></div></div>",
            escape(&it.prompt),
            escape(&it.before),
            escape(&it.after)
        );
        out
    })
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let basis = if machine.calibrated { "kernels timed on it" } else { "kernels estimated from its limits" };
    format!(
        "<p>{}, {} threads, {} of memory, {}; {:.1} GB/s; {basis}. ounce {}, {:.0} s.</p><pre>{}</pre>",
        escape(&machine.cpu.model),
        machine.threads,
        units::bytes(machine.memory_bytes),
        escape(machine.instruction_set),
        machine.bandwidth / 1e9,
        report.ounce,
        report.seconds,
        escape(&report.command)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_models_stay_texts() {
        assert_eq!(escape("<script>\"&\""), "&lt;script&gt;&quot;&amp;&quot;");
        let made = table(&["a"], [(vec!["<b>".to_owned()], "")].into_iter());
        assert!(made.contains("&lt;b&gt;") && !made.contains("<b>"));
    }
}
