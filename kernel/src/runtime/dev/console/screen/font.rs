//! The letters on the screen: those of X11's `10x20`, as the crate `embedded-graphics` brings them,
//! in its sets for the languages of Europe.

use embedded_graphics::geometry::{OriginDimensions, Point};
use embedded_graphics::image::GetPixel;
use embedded_graphics::mono_font::{
    MonoFont, iso_8859_1, iso_8859_2, iso_8859_5, iso_8859_7, iso_8859_9, iso_8859_13, iso_8859_15,
    iso_8859_16,
};
use embedded_graphics::pixelcolor::BinaryColor;

/// Dots in a letter's width.
pub const WIDTH: usize = 10;
/// Dots in a letter's height.
pub const HEIGHT: usize = 20;

/// A character comes from the first set that has it. Western Europe, Central Europe, Cyrillic, Greek
/// and single quotes, Turkish, the Baltic and double quotes, the euro sign, Romanian.
static SETS: [&MonoFont<'static>; 8] = [
    &iso_8859_1::FONT_10X20,
    &iso_8859_2::FONT_10X20,
    &iso_8859_5::FONT_10X20,
    &iso_8859_7::FONT_10X20,
    &iso_8859_9::FONT_10X20,
    &iso_8859_13::FONT_10X20,
    &iso_8859_15::FONT_10X20,
    &iso_8859_16::FONT_10X20,
];
/// Letters in a set: each half of an ISO 8859 code, less the control characters.
const SET_SIZE: usize = 192;

/// The last character that a set has.
pub const LAST: char = '\u{2116}';

/// A letter by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glyph(u16);

impl Glyph {
    /// Nothing. Its number is 0, so that cells of zeros are blank.
    pub const BLANK: Glyph = Glyph(0);
    /// A box, for what there is no letter for.
    pub const BOX: Glyph = Glyph(u16::MAX);

    /// The letter of this number.
    pub const fn from_number(number: u16) -> Glyph {
        Glyph(number)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The letter for `c`; [`Glyph::BOX`] if there is none.
    pub fn of(c: char) -> Glyph {
        if c > LAST {
            return Glyph::BOX;
        }
        for (set, font) in SETS.iter().enumerate() {
            let index = font.glyph_mapping.index(c);
            // What a set has not, it answers with its question mark.
            let is_there = index != font.glyph_mapping.index('?') || c == '?';
            if is_there && !c.is_control() {
                return Glyph((set * SET_SIZE + index) as u16);
            }
        }
        Glyph::BOX
    }

    /// The dots of one of its rows, `y` from 0 to [`HEIGHT`]: bit `WIDTH - 1` is the leftmost.
    pub fn row(self, y: usize) -> u16 {
        let number = usize::from(self.0);
        let Some(font) = SETS.get(number / SET_SIZE) else { return Glyph::box_row(y) };
        let per_row = font.image.size().width as usize / WIDTH;
        let index = number % SET_SIZE;
        let left = index % per_row * WIDTH;
        let top = index / per_row * HEIGHT;
        (0..WIDTH).fold(0, |dots, x| {
            let dot = font.image.pixel(Point::new((left + x) as i32, (top + y) as i32));
            dots << 1 | u16::from(dot == Some(BinaryColor::On))
        })
    }

    /// An outline that leaves a dot free on each side, and what lies under a line of text.
    const fn box_row(y: usize) -> u16 {
        match y {
            3 | 15 => 0b01_1111_1110,
            4..15 => 0b01_0000_0010,
            _ => 0,
        }
    }
}

/// What stands for a character that the sets do not have; `None` for one that has nothing like it.
/// Empty for those that take no place of their own.
pub fn stand_in(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{2010}'..='\u{2013}' | '\u{2212}' => "-",
        '\u{2014}' => "\u{2015}",
        '\u{201a}' => ",",
        '\u{2039}' => "<",
        '\u{203a}' => ">",
        '\u{2032}' => "'",
        '\u{2033}' => "\"",
        '\u{2022}' => "\u{b7}",
        '\u{2026}' => "...",
        '\u{2190}' => "<-",
        '\u{2192}' => "->",
        '\u{2264}' => "<=",
        '\u{2265}' => ">=",
        '\u{2260}' => "!=",
        // Blanks of other widths.
        '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => " ",
        // Marks on the letter before, signs without a shape.
        '\u{300}'..='\u{36f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2060}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letter as text, less the empty rows.
    fn drawn(glyph: Glyph) -> Vec<String> {
        (0..HEIGHT)
            .map(|y| format!("{:010b}", glyph.row(y)).replace('0', ".").replace('1', "#"))
            .filter(|row| row.contains('#'))
            .collect()
    }

    #[test]
    fn letters_have_their_shapes() {
        assert_eq!(Glyph::of(' '), Glyph::BLANK);
        assert!(drawn(Glyph::BLANK).is_empty());
        let l = drawn(Glyph::of('L'));
        assert!(l.len() > 10 && l[..l.len() - 2].iter().all(|row| row == &l[0]), "{l:#?}");
        assert!(l[l.len() - 1].matches('#').count() > 5, "{l:#?}");
        // The same in two scripts, of two sets.
        assert_ne!(Glyph::of('A'), Glyph::of('А'));
        assert_eq!(drawn(Glyph::of('A')), drawn(Glyph::of('А')));
    }

    #[test]
    fn there_are_letters_for_the_languages_of_europe_and_a_box_for_the_rest() {
        for text in [
            "The quick (brown) fox, ~100 % {lazy}?!",
            "ÀÉÎÕÜ ß ñ ¿¡ «»",
            "ąćęłńóśźż ěščřžýáíé ő ű",
            "Съешь ещё этих булок",
            "Ξεσκεπάζω τὴν".trim_end_matches("τὴν"),
            "ğış İ",
            "āčēģīķļņšūž",
            "€ Œ œ ș ț",
            "‘single’ “double” „low” ―",
        ] {
            for c in text.chars() {
                assert_ne!(Glyph::of(c), Glyph::BOX, "{c:?}");
            }
        }
        assert_ne!(Glyph::of(LAST), Glyph::BOX);
        let has =
            |c, font: &&MonoFont<'_>| font.glyph_mapping.index(c) != font.glyph_mapping.index('?');
        let later = LAST..='\u{ffff}';
        assert!(later.skip(1).all(|c| !SETS.iter().any(|font| has(c, font))));
        for c in ['中', '🙂', '\u{fffd}', '\u{7}', '\u{9b}'] {
            assert_eq!(Glyph::of(c), Glyph::BOX, "{c:?}");
        }
        let shape = drawn(Glyph::BOX);
        assert!(shape.iter().all(|row| row.starts_with(".#") && row.ends_with("#.")), "{shape:#?}");
    }

    #[test]
    fn stand_ins_are_needed_and_can_be_drawn() {
        for c in (0..=0xffff).filter_map(char::from_u32) {
            let Some(text) = stand_in(c) else { continue };
            assert_eq!(Glyph::of(c), Glyph::BOX, "{c:?} has a letter");
            assert!(text.chars().all(|c| Glyph::of(c) != Glyph::BOX), "{c:?}");
        }
    }
}
