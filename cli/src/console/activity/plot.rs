//! Figures as pictures: each step of time a bar, or a point of a line.
//!
//! The picture has no words in it, so that it can take any width; the axis is text beside it.

use std::fmt::Write as _;

use super::series::Totals;
use crate::console::moment::{clock_time, took};

/// The picture's own units; it is stretched to the page.
const WIDTH: usize = 960;
const HEIGHT: usize = 120;

/// One colour of a bar, or one line.
pub(in super::super) struct Part {
    /// The class in the style sheet.
    pub(in super::super) class: &'static str,
    pub(in super::super) words: &'static str,
}

/// A bar of a picture.
pub(in super::super) struct Bar {
    pub(in super::super) x: usize,
    pub(in super::super) y: usize,
    pub(in super::super) width: usize,
    pub(in super::super) height: usize,
    pub(in super::super) class: &'static str,
}

/// Where a pointer finds the words of a step.
pub(in super::super) struct Spot {
    pub(in super::super) x: usize,
    pub(in super::super) width: usize,
    pub(in super::super) words: String,
}

/// One picture.
pub(in super::super) struct Plot {
    pub(in super::super) id: &'static str,
    pub(in super::super) title: &'static str,
    /// What it shows, in a sentence, for those who don't see it.
    pub(in super::super) summary: String,
    /// Width and height of its own units.
    pub(in super::super) size: (usize, usize),
    /// The highest value, at the top of the axis.
    pub(in super::super) top: String,
    pub(in super::super) parts: Vec<Part>,
    pub(in super::super) bars: Vec<Bar>,
    /// Lines as paths, with their class.
    pub(in super::super) lines: Vec<(&'static str, String)>,
    pub(in super::super) spots: Vec<Spot>,
}

type Steps = [(i64, Totals)];

/// Bars of counts on top of each other.
fn bars(
    id: &'static str,
    title: &'static str,
    steps: &Steps,
    parts: Vec<Part>,
    of: impl Fn(&Totals) -> Vec<u32>,
) -> Plot {
    let highest = steps.iter().map(|(_, step)| of(step).into_iter().sum::<u32>()).max().unwrap_or(0);
    let top = ceiling(highest);
    let pitch = WIDTH / steps.len().max(1);
    let gap = (pitch / 6).max(1);
    let mut plot = Plot {
        id,
        title,
        size: (WIDTH, HEIGHT),
        summary: String::new(),
        top: top.to_string(),
        parts,
        bars: Vec::new(),
        lines: Vec::new(),
        spots: Vec::new(),
    };
    let mut totals = vec![0_u32; plot.parts.len()];
    for (number, (second, step)) in steps.iter().enumerate() {
        let x = number * pitch;
        let mut y = HEIGHT;
        let counts = of(step);
        for ((count, part), total) in counts.iter().zip(&plot.parts).zip(&mut totals) {
            *total = total.saturating_add(*count);
            if *count == 0 {
                continue;
            }
            // Whatever happened can be seen.
            let height = scaled(u64::from(*count), u64::from(top)).clamp(2, y);
            y -= height;
            plot.bars.push(Bar { x: x + gap / 2, y, width: pitch - gap, height, class: part.class });
        }
        let mut words = clock_time(*second);
        for (count, part) in counts.iter().zip(&plot.parts) {
            // Writing to a `String` can't fail.
            let _ = write!(words, ", {count} {}", part.words);
        }
        plot.spots.push(Spot { x, width: pitch, words });
    }
    let sums = plot.parts.iter().zip(&totals).map(|(part, total)| format!("{total} {}", part.words));
    plot.summary = sums.collect::<Vec<_>>().join(", ");
    plot
}

pub(super) fn calls(steps: &Steps) -> Plot {
    let parts = vec![Part { class: "ok", words: "succeeded" }, Part { class: "failed", words: "failed" }];
    bars("calls", "Calls", steps, parts, |step| vec![step.succeeded, step.failed])
}

pub(super) fn denials(steps: &Steps) -> Plot {
    let parts = vec![Part { class: "denied", words: "refused by policy" }];
    bars("denials", "Refusals", steps, parts, |step| vec![step.denied])
}

pub(super) fn refreshes(steps: &Steps) -> Plot {
    let parts = vec![Part { class: "renewed", words: "renewed" }, Part { class: "failed", words: "failed" }];
    bars("refreshes", "Tokens", steps, parts, |step| vec![step.refreshed, step.not_refreshed])
}

/// How long calls took: the middle one, and the slowest of twenty.
pub(super) fn latencies(steps: &Steps) -> Plot {
    const SHARES: [(&str, &str, f64); 2] = [("slow", "95 % within", 0.95), ("middle", "half within", 0.5)];
    let highest = steps.iter().filter_map(|(_, step)| step.took(0.95)).max().unwrap_or(0);
    let top = u64::from(ceiling(u32::try_from(highest).unwrap_or(u32::MAX)));
    let pitch = WIDTH / steps.len().max(1);
    let mut lines = Vec::new();
    for (class, _, share) in SHARES {
        let mut path = String::new();
        let mut drawing = false;
        for (number, (_, step)) in steps.iter().enumerate() {
            let Some(value) = step.took(share) else {
                drawing = false;
                continue;
            };
            let (x, y) = (number * pitch + pitch / 2, HEIGHT - scaled(value, top).min(HEIGHT));
            // A lone point is a short stroke: a path of one point draws nothing.
            let _ = if drawing {
                write!(path, "L{x} {y}")
            } else {
                write!(path, "M{} {y}L{x} {y}", x.saturating_sub(pitch / 3))
            };
            drawing = true;
        }
        lines.push((class, path));
    }
    let spots = steps.iter().enumerate().map(|(number, (second, step))| {
        let mut words = clock_time(*second);
        match (step.took(0.5), step.took(0.95)) {
            (Some(half), Some(most)) => {
                let _ = write!(words, ", half within {}, 95 % within {}", took(half), took(most));
            }
            _ => words.push_str(", no call"),
        }
        Spot { x: number * pitch, width: pitch, words }
    });
    let slowest =
        if highest == 0 { "no call".to_owned() } else { format!("at the worst 95 % within {}", took(highest)) };
    Plot {
        id: "latencies",
        title: "How long calls took",
        size: (WIDTH, HEIGHT),
        summary: slowest,
        top: took(top),
        parts: SHARES.map(|(class, words, _)| Part { class, words }).into(),
        bars: Vec::new(),
        lines,
        spots: spots.collect(),
    }
}

fn scaled(value: u64, top: u64) -> usize {
    usize::try_from(value.saturating_mul(HEIGHT as u64) / top.max(1)).unwrap_or(HEIGHT)
}

/// The next number that people read easily, and its half too: 1, 2, 3, 4, 6, 8, 10, 20, …
fn ceiling(value: u32) -> u32 {
    let mut step = 1_u32;
    loop {
        for factor in [1, 2, 3, 4, 6, 8] {
            let next = step.saturating_mul(factor);
            if next >= value {
                return next;
            }
        }
        step = step.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_axis_ends_at_a_number_that_people_read_easily() {
        assert_eq!([0, 1, 3, 5, 11, 40, 99, 101].map(ceiling), [1, 1, 3, 6, 20, 40, 100, 200]);
        assert_eq!(ceiling(u32::MAX), u32::MAX);
    }

    proptest! {
        #[test]
        fn no_bar_leaves_the_picture(counts in proptest::collection::vec((0_u32..5000, 0_u32..5000), 60..=96)) {
            let steps: Vec<(i64, Totals)> = counts
                .iter()
                .enumerate()
                .map(|(n, (succeeded, failed))| {
                    (i64::try_from(n).unwrap() * 60, Totals { succeeded: *succeeded, failed: *failed, ..Totals::default() })
                })
                .collect();
            for bar in calls(&steps).bars {
                prop_assert!(bar.x + bar.width <= WIDTH && bar.y + bar.height <= HEIGHT && bar.height >= 1);
            }
        }
    }
}
