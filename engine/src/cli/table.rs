//! Rows for people and for scripts: the table, the template and the JSON forms of `ps` and `images`.
//!
//! Owns column widths and the choice of form. Refuses to truncate: rows come with their final texts.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::failure::Failure;
use super::template::Template;

/// One row: the fields that templates can name. JSON prints them in the order of their names, as Docker does.
pub(crate) type Row = Map<String, Value>;

/// A kind of row: its fields, with the headings of those that have one.
pub(crate) struct Columns {
    /// The columns of the default table, as a template.
    pub(crate) default: &'static str,
    /// Field name and heading.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// Prints `rows` in the form that `format` asks for: nothing or `table`, `table TEMPLATE`, `json`, or a template.
pub(crate) fn print(columns: &Columns, format: Option<&str>, rows: Vec<Row>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let table = match format {
        None | Some("" | "table") => columns.default,
        Some("json") => {
            for row in rows {
                writeln!(out, "{}", Value::Object(row))?;
            }
            return Ok(out.flush()?);
        }
        Some(format) => match format.strip_prefix("table ") {
            Some(table) => table,
            None => {
                let template = Template::parse(format)?;
                for row in rows {
                    writeln!(out, "{}", template.render(&Value::Object(row))?)?;
                }
                return Ok(out.flush()?);
            }
        },
    };
    let template = Template::parse(table)?;
    let heading = |name: &str| {
        let known = columns.headings.iter().find(|(field, _)| *field == name);
        known.map_or_else(|| name.to_uppercase(), |(_, heading)| (*heading).to_owned())
    };
    let mut lines = vec![template.header(heading)];
    for row in rows {
        lines.push(template.render(&Value::Object(row))?);
    }
    out.write_all(align(&lines).as_bytes())?;
    Ok(out.flush()?)
}

/// Aligns tab-separated cells: three spaces between columns, which are at least ten wide; nothing after the last cell.
pub(crate) fn align(lines: &[String]) -> String {
    const GAP: usize = 3;
    const NARROWEST: usize = 10;
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (at, cell) in line.split('\t').enumerate() {
            let width = (cell.chars().count() + GAP).max(NARROWEST);
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut table = String::new();
    for line in lines {
        let mut cells = line.split('\t').enumerate().peekable();
        while let Some((at, cell)) = cells.next() {
            table.push_str(cell);
            if cells.peek().is_some() {
                let used = cell.chars().count();
                table.extend(std::iter::repeat_n(' ', widths[at] - used));
            }
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_last_cell_is_not_padded() {
        let lines = [
            "ID\tNAMES".to_owned(),
            "0123456789ab\tx".to_owned(),
            "é\ty".to_owned(),
        ];
        assert_eq!(
            align(&lines),
            "ID             NAMES\n0123456789ab   x\né              y\n"
        );
    }
}
