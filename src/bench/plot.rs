//! Draw figures as bars: one SVG, readable without a program of its own.

use crate::bench::{BenchStep, StepFigures};
use std::fmt::Write;

const BAR: u32 = 18;
const LEFT: u32 = 130;
const WIDTH: u32 = 460;

/// One group of bars for each step, the shortest time on top.
pub fn plot_svg(title: &str, figures: &[StepFigures]) -> String {
    let mut body = String::new();
    let mut y = 40;
    for step in BenchStep::ALL {
        let mut of_step: Vec<&StepFigures> = figures.iter().filter(|figure| figure.step == step).collect();
        of_step.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let longest = of_step.iter().map(|figure| figure.seconds).fold(1e-9, f64::max);
        line(&mut body, 10, y + 12, "bold", &format!("{step:?}"));
        y += 20;
        for figure in of_step {
            let width = (figure.seconds / longest * f64::from(WIDTH)).max(1.0);
            let colour = if figure.tool == "silt" { "#1f6f8b" } else { "#b9b4a7" };
            line(&mut body, 10, y + 13, "normal", &figure.tool);
            let bar = format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\n",
                BAR - 4
            );
            body.push_str(&bar);
            line(&mut body, LEFT + width as u32 + 6, y + 12, "normal", &format!("{:.2} s", figure.seconds));
            y += BAR;
        }
        y += 14;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 {y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"10\" y=\"22\" font-size=\"15\">{}</text>\n{body}</svg>\n",
        escape(title)
    )
}

fn line(body: &mut String, x: u32, y: u32, weight: &str, text: &str) {
    // Writing to a string cannot fail.
    let _always_ok = writeln!(body, "<text x=\"{x}\" y=\"{y}\" font-weight=\"{weight}\">{}</text>", escape(text));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_its_bar() {
        let figure = |tool: &str, seconds| StepFigures {
            tool: tool.to_owned(),
            step: BenchStep::First,
            seconds,
            repository_bytes: 0,
        };
        let svg = plot_svg("a < b", &[figure("silt", 1.0), figure("tar", 2.0)]);
        assert!(
            svg.contains("a &lt; b")
                && svg.contains("silt")
                && svg.contains("2.00 s")
                && svg.matches("<rect").count() == 3
        );
    }
}
