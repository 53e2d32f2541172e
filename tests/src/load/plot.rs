//! Plots as SVG, without a library: bars beside a goal.

use std::fmt;

/// Horizontal bars, each with its label and value, and a line where the goal lies.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What stands above.
    pub title: String,
    /// What a value is to be at least or at most.
    pub goal: f64,
    /// Labels and values.
    pub bars: Vec<(String, f64)>,
}

const ROW: usize = 24;
const LEFT: f64 = 380.0;
const WIDTH: f64 = 360.0;
/// Of the whole, with the room that a value needs.
const ALL: f64 = LEFT + WIDTH + 80.0;

impl fmt::Display for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest =
            self.bars.iter().map(|(_, value)| *value).fold(self.goal, f64::max).max(f64::MIN_POSITIVE);
        let x = |value: f64| LEFT + WIDTH * value / largest;
        let height = ROW * self.bars.len() + 60;
        writeln!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{ALL}" height="{height}" font-family="sans-serif" font-size="13">"##
        )?;
        writeln!(f, r##"<rect width="{ALL}" height="{height}" fill="#ffffff"/>"##)?;
        writeln!(f, r##"<text x="10" y="22" font-weight="bold">{}</text>"##, escaped(&self.title))?;
        for (number, (label, value)) in self.bars.iter().enumerate() {
            let top = 36 + ROW * number;
            writeln!(
                f,
                r##"<text x="{}" y="{}" text-anchor="end">{}</text>"##,
                LEFT - 8.0,
                top + 15,
                escaped(label)
            )?;
            let width = x(*value) - LEFT;
            writeln!(
                f,
                r##"<rect x="{LEFT}" y="{}" width="{width:.1}" height="16" fill="#4878a8"/>"##,
                top + 2
            )?;
            writeln!(f, r##"<text x="{:.1}" y="{}">{value:.2}</text>"##, x(*value) + 6.0, top + 15)?;
        }
        let (goal, bottom) = (x(self.goal), height - 18);
        writeln!(
            f,
            r##"<line x1="{goal:.1}" y1="32" x2="{goal:.1}" y2="{bottom}" stroke="#c03030" stroke-dasharray="4 3"/>"##
        )?;
        writeln!(
            f,
            r##"<text x="{goal:.1}" y="{}" fill="#c03030" text-anchor="middle">goal {:.2}</text>"##,
            height - 4,
            self.goal
        )?;
        writeln!(f, "</svg>")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_bar_for_each_value_and_a_line_for_the_goal() {
        let bars = vec![("a < b".to_owned(), 1.0), ("c".to_owned(), 0.5)];
        let svg = Bars { title: "t".to_owned(), goal: 0.98, bars }.to_string();
        assert_eq!(svg.matches("#4878a8").count(), 2);
        assert!(
            svg.contains("a &lt; b") && svg.contains(r#"width="360.0""#) && svg.contains("goal 0.98"),
            "{svg}"
        );
    }
}
