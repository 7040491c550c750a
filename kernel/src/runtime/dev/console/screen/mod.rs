//! Text on a display, in the memory that a boot loader or firmware gave as its picture.
//!
//! The bytes are those of the serial line, and what a person should see of them is shown: text for
//! people, but of the events only an error and the end, in words ([`record`]). Long lines go on in the
//! next one. At the bottom the text moves up by a quarter of the screen at once, as each move draws most
//! of it anew. No memory of the picture is read for that: which letter a cell should show and which it
//! shows is kept in a [`Grid`], and only cells where these differ are drawn.
//!
//! The grid is made of single numbers that are each valid at all times, so that a core that ends the run
//! may print whatever another one was about to do with it, with no lock and no memory of its own.

#![forbid(unsafe_code)]

mod canvas;
mod font;
mod record;
mod text;

#[cfg(not(target_os = "none"))]
pub mod reader;

#[cfg(test)]
mod tests;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::Relaxed};

pub use canvas::{BACKGROUND, FOREGROUND, Layout, MARK};
pub use font::{Glyph, HEIGHT as GLYPH_HEIGHT, LAST as LAST_CHARACTER, WIDTH as GLYPH_WIDTH};
pub use text::Text;

use crate::runtime::dev::mmio::{self, Registers};
use crate::runtime::machine::Framebuffer;
use canvas::Canvas;
use text::Action;

/// Most letters on a screen.
pub const MAX_CELLS: usize = 20_000;
/// How often the text moves up until all lines are others.
const MOVES_A_SCREEN: usize = 4;
/// Letters from one tab stop to the next.
const TAB: usize = 8;

/// What a screen shows and is to show. Zeros: nothing.
#[derive(Debug)]
pub struct Grid {
    /// Line by line, as many as the screen has.
    cells: [Cell; MAX_CELLS],
    /// Where the next letter comes. The column may be one too many: the letter then comes on the next line.
    row: AtomicUsize,
    column: AtomicUsize,
    /// The first row in which cells may differ, and one past the last.
    changed_from: AtomicUsize,
    changed_to: AtomicUsize,
    /// The picture holds what the cells say.
    is_cleared: AtomicBool,
}

/// A place for a letter: the numbers of [`Glyph`]s.
#[derive(Debug)]
struct Cell {
    wanted: AtomicU16,
    shown: AtomicU16,
}

impl Cell {
    /// Blank.
    const fn new() -> Cell {
        let blank = Glyph::BLANK.number();
        Cell { wanted: AtomicU16::new(blank), shown: AtomicU16::new(blank) }
    }
}

impl Grid {
    /// An empty one.
    pub const fn new() -> Grid {
        Grid {
            cells: [const { Cell::new() }; MAX_CELLS],
            row: AtomicUsize::new(0),
            column: AtomicUsize::new(0),
            changed_from: AtomicUsize::new(0),
            changed_to: AtomicUsize::new(0),
            is_cleared: AtomicBool::new(false),
        }
    }
}

impl Default for Grid {
    fn default() -> Self {
        Grid::new()
    }
}

/// A screen for text. No two cores are to use it at a time, but for one that ends the run: it then shows
/// some letters wrong at worst.
#[derive(Debug)]
pub struct Screen<'g, R> {
    canvas: Canvas<R>,
    layout: Layout,
    grid: &'g Grid,
    width: u32,
    height: u32,
}

impl<R> fmt::Display for Screen<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout { columns, rows, .. } = self.layout;
        write!(f, "{}x{}, text {columns}x{rows}", self.width, self.height)
    }
}

impl<'g, R: Registers> Screen<'g, R> {
    /// The screen whose picture is in `memory`, as `framebuffer` says. Nothing is drawn before
    /// [`Screen::flush`].
    pub fn new(framebuffer: &Framebuffer, memory: R, grid: &'g Grid) -> Screen<'g, R> {
        let layout = Layout::new(framebuffer.width, framebuffer.height, MAX_CELLS);
        let Framebuffer { width, height, .. } = *framebuffer;
        Screen { canvas: Canvas::new(framebuffer, layout, memory), layout, grid, width, height }
    }

    /// Draws a square in the upper left corner, the one with this number from the left, on whatever is
    /// there. The first [`Screen::flush`] takes it away; after that it is not drawn.
    pub fn mark(&self, number: usize) {
        if self.grid.is_cleared.load(Relaxed) {
            return;
        }
        // A letter is twice as high as wide. Between the squares there is as much room.
        for column in [4 * number, 4 * number + 1] {
            if column < self.layout.columns {
                self.canvas.mark(0, column);
            }
        }
        mmio::publish();
    }

    /// Takes the next byte of the text, whose reading has come as far as `text` says.
    pub fn feed(&self, text: &mut Text, byte: u8) {
        text.feed(byte, |action| self.act(action));
    }

    /// Draws the cells that have changed. Calls `go_on` now and then; a core that stops in there leaves
    /// nothing behind that keeps another one from going on.
    pub fn flush(&self, mut go_on: impl FnMut()) {
        let grid = self.grid;
        if !grid.is_cleared.load(Relaxed) {
            self.canvas.clear(&mut go_on);
            grid.is_cleared.store(true, Relaxed);
        }
        let to = grid.changed_to.load(Relaxed).min(self.layout.rows);
        for row in grid.changed_from.load(Relaxed)..to {
            go_on();
            for (column, cell) in self.row(row).iter().enumerate() {
                let wanted = cell.wanted.load(Relaxed);
                if wanted != cell.shown.load(Relaxed) {
                    self.canvas.draw(row, column, Glyph::from_number(wanted));
                    cell.shown.store(wanted, Relaxed);
                }
            }
        }
        grid.changed_from.store(self.layout.rows, Relaxed);
        grid.changed_to.store(0, Relaxed);
        // A core may stop for good after this.
        mmio::publish();
    }

    /// As [`Screen::flush`], for a core that ends the run: looks at all cells, as it may have come in between
    /// whatever another one was doing.
    pub fn flush_all(&self) {
        self.has_changed(0..self.layout.rows);
        self.flush(|| ());
    }

    fn row(&self, row: usize) -> &'g [Cell] {
        let columns = self.layout.columns;
        &self.grid.cells[row * columns..][..columns]
    }

    fn has_changed(&self, rows: core::ops::Range<usize>) {
        self.grid.changed_from.fetch_min(rows.start, Relaxed);
        self.grid.changed_to.fetch_max(rows.end, Relaxed);
    }

    fn act(&self, action: Action) {
        let column = &self.grid.column;
        let last = self.layout.columns - 1;
        match action {
            Action::Show(c) => self.show(c),
            Action::NextLine => self.next_line(),
            Action::Return => column.store(0, Relaxed),
            Action::Tab => {
                column.store((column.load(Relaxed) / TAB * TAB + TAB).min(last), Relaxed);
            }
            Action::Back => {
                column.store(column.load(Relaxed).min(last + 1).saturating_sub(1), Relaxed)
            }
            Action::EraseRest => {
                let row = self.grid.row.load(Relaxed);
                for cell in self.row(row).iter().skip(column.load(Relaxed)) {
                    cell.wanted.store(Glyph::BLANK.number(), Relaxed);
                }
                self.has_changed(row..row + 1);
            }
        }
    }

    fn show(&self, c: char) {
        let glyph = Glyph::of(c);
        match font::stand_in(c) {
            Some(text) if glyph == Glyph::BOX => text.chars().for_each(|c| self.put(Glyph::of(c))),
            _ => self.put(glyph),
        }
    }

    fn put(&self, glyph: Glyph) {
        if self.grid.column.load(Relaxed) >= self.layout.columns {
            self.next_line();
        }
        let row = self.grid.row.load(Relaxed);
        let column = self.grid.column.load(Relaxed);
        if let Some(cell) = self.row(row).get(column) {
            cell.wanted.store(glyph.number(), Relaxed);
        }
        self.has_changed(row..row + 1);
        self.grid.column.store(column + 1, Relaxed);
    }

    /// Goes to the start of the next line. At the bottom all lines move up.
    fn next_line(&self) {
        self.grid.column.store(0, Relaxed);
        let row = self.grid.row.load(Relaxed);
        let rows = self.layout.rows;
        if row + 1 < rows {
            return self.grid.row.store(row + 1, Relaxed);
        }
        let up = (rows / MOVES_A_SCREEN).max(1);
        for row in up..rows {
            for (to, from) in self.row(row - up).iter().zip(self.row(row)) {
                to.wanted.store(from.wanted.load(Relaxed), Relaxed);
            }
        }
        for cell in (rows - up..rows).flat_map(|row| self.row(row)) {
            cell.wanted.store(Glyph::BLANK.number(), Relaxed);
        }
        self.grid.row.store(rows - up, Relaxed);
        self.has_changed(0..rows);
    }
}
