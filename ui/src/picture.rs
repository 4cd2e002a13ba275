//! A picture of a screen and its file formats. Source: Netpbm `ppm(5)`; PNG by the `png` crate.

use std::io::{self, Write};

/// Pixels, 0x00RRGGBB, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// `width * height` pixels.
    pub pixels: Vec<u32>,
}

impl Picture {
    /// A black picture.
    pub fn blank(width: u32, height: u32) -> Picture {
        Picture { width, height, pixels: vec![0; width as usize * height as usize] }
    }

    fn rgb(&self) -> Vec<u8> {
        self.pixels
            .iter()
            .flat_map(|p| {
                let [_, r, g, b] = p.to_be_bytes();
                [r, g, b]
            })
            .collect()
    }

    /// Writes a binary PPM.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_ppm(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "P6\n{} {}\n255\n", self.width, self.height)?;
        out.write_all(&self.rgb())
    }

    /// Writes a PNG.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_png(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut encoder = png::Encoder::new(out, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb())?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ppm_and_png_hold_the_pixels() {
        let p = Picture { width: 2, height: 1, pixels: vec![0x00ff_0000, 0x0000_00ff] };
        let mut ppm = vec![];
        p.write_ppm(&mut ppm).unwrap();
        assert_eq!(ppm, b"P6\n2 1\n255\n\xff\0\0\0\0\xff");
        let mut file = vec![];
        p.write_png(&mut file).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(file)).read_info().unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut data).unwrap();
        assert_eq!(data[..6], [255, 0, 0, 0, 0, 255]);
    }
}
