//! Prometheus' text format (version 0.0.4): families of samples, each family told of once.

use std::fmt::Write as _;

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the process ends.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// The page so far.
    pub fn into_text(self) -> String {
        self.0
    }

    /// Begins the family `name`. All its samples must follow before the next family.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.0.push_str("# HELP ");
        self.0.push_str(name);
        self.0.push(' ');
        escape(&mut self.0, help, false);
        self.0.push_str("\n# TYPE ");
        self.0.push_str(name);
        self.0.push(' ');
        self.0.push_str(kind);
        self.0.push('\n');
    }

    /// Adds a sample to the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            escape(&mut self.0, value, true);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.0.push(' ');
        // Whole numbers without a point, the others with as many digits as they need: both read back the same.
        if write!(self.0, "{value}").is_err() {
            self.0.push_str("NaN");
        }
        self.0.push('\n');
    }
}

/// Writes `text` with backslashes and line ends escaped, and double quotes where it stands between them.
fn escape(page: &mut String, text: &str, quoted: bool) {
    for character in text.chars() {
        match character {
            '\\' => page.push_str("\\\\"),
            '\n' => page.push_str("\\n"),
            '"' if quoted => page.push_str("\\\""),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_label_says_stays_inside_of_it() {
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "one \"word\"\nand \\ another");
        page.sample("a_total", &[("x", "q\"} 1\nb_total 2\\"), ("y", "")], 0.25);
        page.sample("a_total", &[], 18_446_744_073_709_551_615_u64 as f64);
        assert_eq!(
            page.into_text(),
            "# HELP a_total one \"word\"\\nand \\\\ another\n# TYPE a_total counter\n\
             a_total{x=\"q\\\"} 1\\nb_total 2\\\\\",y=\"\"} 0.25\na_total 18446744073709552000\n"
        );
    }
}
