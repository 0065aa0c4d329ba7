//! Rectangles and numbers drawn into RGB pictures.

/// Rows of the digits 0 to 9, three pixels each, the highest bit on the left.
const DIGITS: [[u8; 5]; 10] = [
    [0b111, 0b101, 0b101, 0b101, 0b111],
    [0b010, 0b110, 0b010, 0b010, 0b111],
    [0b111, 0b001, 0b111, 0b100, 0b111],
    [0b111, 0b001, 0b111, 0b001, 0b111],
    [0b101, 0b101, 0b111, 0b001, 0b001],
    [0b111, 0b100, 0b111, 0b001, 0b111],
    [0b111, 0b100, 0b111, 0b101, 0b111],
    [0b111, 0b001, 0b010, 0b010, 0b010],
    [0b111, 0b101, 0b111, 0b101, 0b111],
    [0b111, 0b101, 0b111, 0b001, 0b111],
];

/// A picture to draw into: `rgb` is `[height, width, 3]`.
pub(super) struct Canvas<'a> {
    pub rgb: &'a mut [u8],
    pub width: usize,
    pub height: usize,
}

/// Width and height in pixels of a number on its plate, drawn with dots of `scale` pixels.
pub(super) fn plate_size(number: u64, scale: usize) -> (usize, usize) {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    (scale * (digits * 4 + 1), scale * 7)
}

impl Canvas<'_> {
    /// Draws the number on a plate whose upper left corner is given.
    pub(super) fn number(
        &mut self,
        number: u64,
        left: usize,
        upper: usize,
        scale: usize,
        plate: [u8; 3],
        ink: [u8; 3],
    ) {
        let (wide, high) = plate_size(number, scale);
        self.fill(left, upper, wide, high, plate);
        for (i, digit) in number.to_string().bytes().enumerate() {
            let rows = DIGITS[usize::from(digit - b'0')];
            for (y, row) in rows.iter().enumerate() {
                for x in 0..3 {
                    if (row >> (2 - x)) & 1 == 1 {
                        let cell_x = left + scale * (1 + i * 4 + x);
                        self.fill(cell_x, upper + scale * (1 + y), scale, scale, ink);
                    }
                }
            }
        }
    }

    /// Fills a rectangle with one colour; the part outside of the picture is ignored.
    pub(super) fn fill(
        &mut self,
        left: usize,
        top: usize,
        wide: usize,
        high: usize,
        colour: [u8; 3],
    ) {
        let right = (left + wide).min(self.width);
        for y in top..(top + high).min(self.height) {
            for x in left..right {
                let at = (y * self.width + x) * 3;
                self.rgb[at..at + 3].copy_from_slice(&colour);
            }
        }
    }
}
