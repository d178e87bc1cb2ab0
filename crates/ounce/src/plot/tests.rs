//! What is drawn, read back by other parsers.

use super::*;

fn chart(series: Vec<Series>) -> Chart {
    let label = |text: &str| text.to_string();
    Chart {
        title: label("A <title> & \u{1}more"),
        x_label: label("x"),
        y_label: label("y"),
        series,
        ..Chart::default()
    }
}

fn curve(count: usize) -> Vec<(f64, f64)> {
    (1..=count).map(|i| (i as f64, 1.0 + 8.0 / i as f64)).collect()
}

/// The chart as SVG, through a file.
fn svg(chart: &Chart) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("chart.svg");
    write_svg(chart, &path).expect("written");
    std::fs::read_to_string(path).expect("text")
}

fn pixels(chart: &Chart) -> tiny_skia::Pixmap {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("chart.png");
    write_png(chart, &path).expect("written");
    tiny_skia::Pixmap::decode_png(&std::fs::read(path).expect("bytes")).expect("a PNG")
}

/// Points of each path of a width, read back from the SVG.
fn paths(text: &str, width: &str) -> Vec<Vec<(f64, f64)>> {
    let document = roxmltree::Document::parse(text).expect("valid XML");
    let lines = document
        .descendants()
        .filter(|node| node.has_tag_name("path") && node.attribute("stroke-width") == Some(width));
    let point = |text: &str| {
        let (x, y) = text.split_once(' ').expect("two numbers");
        (x.parse().expect("x"), y.parse().expect("y"))
    };
    let read = |line: &str| line[1..].split('L').map(point).collect();
    lines.map(|node| read(node.attribute("d").expect("points"))).collect()
}

#[test]
fn svg_is_valid_and_has_every_name_and_point() {
    let mut points = curve(300);
    points[7].1 = f64::NAN;
    points[8].0 = f64::INFINITY;
    points[9].1 = -1e305;
    let text = svg(&chart(vec![
        Series::line("loss <a> & \"b\"", points),
        Series::dotted("Валидация", vec![(1.0, 2.0), (150.0, 3.0)]),
    ]));
    let document = roxmltree::Document::parse(&text).expect("valid XML");
    let words: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for word in ["loss <a> & \"b\"", "Валидация", "A <title> & \u{fffd}more", "x", "y"] {
        assert!(words.contains(&word), "{word} is not in {words:?}");
    }
    let lengths: Vec<usize> = paths(&text, "2").iter().map(Vec::len).collect();
    // Two samples in the legend, then the lines.
    assert_eq!(lengths, [2, 2, 297, 2]);
    assert_eq!(document.descendants().filter(|node| node.has_tag_name("circle")).count(), 1 + 2);
}

#[test]
fn points_stand_where_the_axes_say() {
    let mut chart =
        chart(vec![Series::line("a", vec![(1.0, 1.0), (10.0, 10.0), (100.0, 100.0), (0.0, 5.0)])]);
    chart.series[0].points.truncate(3);
    let middle = |chart: &Chart| {
        let points = paths(&svg(chart), "2").pop().expect("a line");
        let share = |part: f64, low: f64, high: f64| (part - low) / (high - low);
        let [from, between, to] = points[..] else { panic!("{points:?}") };
        (share(between.0, from.0, to.0), share(between.1, from.1, to.1))
    };
    let (x, y) = middle(&chart);
    assert!((x - 1.0 / 11.0).abs() < 1e-3 && (y - 1.0 / 11.0).abs() < 1e-3, "{x} {y}");
    (chart.log_x, chart.log_y) = (true, true);
    let (x, y) = middle(&chart);
    assert!((x - 0.5).abs() < 1e-3 && (y - 0.5).abs() < 1e-3, "{x} {y}");
    chart.series[0].points.push((0.0, 5.0));
    assert_eq!(middle(&chart), (x, y), "zero has no place on a logarithmic axis");
}

#[test]
fn a_spike_in_a_long_series_is_drawn() {
    let mut points: Vec<(f64, f64)> = (0..200_000).map(|i| (f64::from(i), 2.0)).collect();
    points[123_457].1 = 50.0;
    let line = paths(&svg(&chart(vec![Series::line("a", points)])), "2").pop().expect("a line");
    assert!(line.len() <= thin::MOST, "{}", line.len());
    let highest = line.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let lowest = line.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    assert!(lowest - highest > 300.0, "from {lowest} to {highest}");
}

#[test]
fn png_shows_each_series_in_its_colour() {
    let faint = Series::faint("raw", curve(50));
    let picture = pixels(&chart(vec![faint, Series::line("mean", curve(50)), Series::dotted("b", curve(9))]));
    assert_eq!((picture.width(), picture.height()), (1920, 1200));
    let count = |colour: (u8, u8, u8)| {
        let same =
            |pixel: &&tiny_skia::PremultipliedColorU8| (pixel.red(), pixel.green(), pixel.blue()) == colour;
        picture.pixels().iter().filter(same).count()
    };
    assert!(count((0x00, 0x72, 0xb2)) > 1000, "blue");
    assert!(count((0xd5, 0x5e, 0x00)) > 1000, "orange");
    assert_eq!(count((0x00, 0x9e, 0x73)), 0, "the faint line takes no colour of its own");
    // Text: the title's ink.
    assert!(count((0x22, 0x22, 0x22)) > 500, "text");
    assert!(count((255, 255, 255)) > 1_500_000, "background");
}

#[test]
fn an_empty_chart_says_so() {
    for series in [vec![], vec![Series::line("gone", vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)])]] {
        let chart = chart(series);
        assert!(svg(&chart).contains("There are no points to draw."));
        assert!(pixels(&chart).pixels().iter().any(|pixel| pixel.red() < 0x80), "the PNG says nothing");
    }
}

#[test]
fn one_point_and_many_series_are_drawn() {
    let text = svg(&chart(vec![Series::line("one", vec![(3.0, 3.0)])]));
    assert_eq!(text.matches("<circle").count(), 1);
    let many = (0..100).map(|i| Series::line(format!("a series with a long name, {i}"), curve(3))).collect();
    let text = svg(&chart(many));
    assert!(text.contains(" more</text>"), "the legend goes on for ever");
    assert!(text.contains("stroke-dasharray"), "series of one colour look the same");
    assert!(!text.contains("NaN") && !text.contains("inf"));
    let long = chart(vec![Series::line("name ".repeat(1000), curve(3))]);
    assert!(svg(&long).contains("…</text>"));
}

#[test]
fn an_older_file_stays_if_the_new_one_cannot_be_written() {
    let folder = tempfile::tempdir().expect("folder");
    let error = write_svg(&chart(vec![]), &folder.path().join("missing/chart.svg")).expect_err("no folder");
    assert!(error.to_string().ends_with("chart.svg can't be written"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
}

#[test]
fn a_log_becomes_a_picture() {
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("log.jsonl");
    let line =
        |step: usize| format!("{{\"event\":\"step\",\"step\":{step},\"tokens\":{step}000,\"loss\":2.5}}\n");
    std::fs::write(&log, (1..=200).map(line).collect::<String>()).expect("log");
    let text = svg(&loss_curve(&log).expect("curve"));
    for words in ["training loss", "training loss, running mean of 7 points", "tokens learned from", "150 K"]
    {
        assert!(text.contains(&format!(">{words}</text>")), "{words} is not in {text}");
    }
}
