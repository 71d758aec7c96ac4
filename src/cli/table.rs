//! Tables on standard output.

/// How the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Text, to the left.
    Left,
    /// Numbers, to the right.
    Right,
}

/// Aligns the columns, two spaces apart.
pub(super) fn table<const N: usize>(columns: [Column; N], rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).zip(columns).map(|((cell, width), column)| match column {
            Column::Left => format!("{cell:width$}"),
            Column::Right => format!("{cell:>width$}"),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::cli::table::*;

    #[test]
    fn cells_line_up() {
        let rows = [["a", "price", "b"], ["µ1", "5", ""], ["long", "12345678", "x"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let text = table([Column::Left, Column::Right, Column::Left], &rows);
        assert_eq!(text, "a        price  b\nµ1           5\nlong  12345678  x\n");
    }
}
