//! Conversion of pictures by FFmpeg's filters: decoded frames to RGB, and overlay frames to YUV.

use ffmpeg_next::codec::packet;
use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::{self, Video};
use ffmpeg_next::{Error, Rational, Stream};

use super::ffmpeg;

/// A filter graph with one input and one output of pictures.
pub(super) struct FilterChain {
    graph: Graph,
}

impl FilterChain {
    /// Builds the graph for pictures of one size and pixel format.
    ///
    /// `filters` is a description in FFmpeg's syntax, such as `hflip,format=pix_fmts=rgb24`.
    ///
    /// # Errors
    /// FFmpeg's error as text: a filter is missing or refuses its options.
    pub(super) fn new(
        width: u32,
        height: u32,
        format: Pixel,
        time_base: Rational,
        filters: &str,
    ) -> Result<Self, String> {
        let format = format
            .descriptor()
            .map_or("none", |descriptor| descriptor.name());
        let source = format!(
            "video_size={width}x{height}:pix_fmt={format}:time_base={}/{}",
            time_base.numerator(),
            time_base.denominator()
        );
        let build = || {
            let mut graph = Graph::new();
            let find = |name| filter::find(name).ok_or(Error::FilterNotFound);
            graph.add(&find("buffer")?, "in", &source)?;
            graph.add(&find("buffersink")?, "out", "")?;
            graph.output("in", 0)?.input("out", 0)?.parse(filters)?;
            graph.validate()?;
            Ok(graph)
        };
        Ok(Self {
            graph: build().map_err(ffmpeg::describe)?,
        })
    }

    /// Filters one picture. `picture` is empty afterwards: its pixels move into the graph.
    ///
    /// # Errors
    /// FFmpeg's error as text.
    pub(super) fn run(&mut self, picture: &mut Video) -> Result<Video, String> {
        let mut output = Video::empty();
        let mut filter = |name| self.graph.get(name).ok_or(Error::FilterNotFound);
        let mut pass = || {
            filter("in")?.source().add(picture)?;
            filter("out")?.sink().frame(&mut output)
        };
        pass().map_err(ffmpeg::describe)?;
        Ok(output)
    }
}

/// Converts decoded frames of one size, pixel format and orientation to RGB, by the filters that
/// the FFmpeg command builds: rotation by the display matrix, `null`, `format=rgb24`, with bicubic
/// chroma resampling. FFmpeg reads colour space and range from each frame.
pub(super) struct RgbConverter {
    chain: FilterChain,
    geometry: Geometry,
}

#[derive(PartialEq)]
struct Geometry {
    width: u32,
    height: u32,
    format: Pixel,
    /// The frame's own matrix; the stream's holds where a frame has none.
    matrix: Option<[i32; 9]>,
}

impl Geometry {
    fn of(picture: &Video) -> Self {
        let side = picture.side_data(frame::side_data::Type::DisplayMatrix);
        Self {
            width: picture.width(),
            height: picture.height(),
            format: picture.format(),
            matrix: side.and_then(|side| matrix(side.data())),
        }
    }
}

impl RgbConverter {
    /// Builds the graph for frames like `picture`, which `stream` holds.
    ///
    /// # Errors
    /// FFmpeg's error as text.
    pub(super) fn new(stream: &Stream<'_>, picture: &Video) -> Result<Self, String> {
        let geometry = Geometry::of(picture);
        let of_stream = || {
            let kind = packet::side_data::Type::DisplayMatrix;
            let side = stream.side_data().find(|side| side.kind() == kind)?;
            matrix(side.data())
        };
        let mut filters = "sws_flags=bicubic;".to_owned();
        if let Some(matrix) = geometry.matrix.or_else(of_stream) {
            filters += &rotation(&matrix);
        }
        filters += "null,format=pix_fmts=rgb24";
        let chain = FilterChain::new(
            geometry.width,
            geometry.height,
            geometry.format,
            stream.time_base(),
            &filters,
        )
        .map_err(failed)?;
        Ok(Self { chain, geometry })
    }

    /// Whether the graph was built for frames like `picture`.
    pub(super) fn fits(&self, picture: &Video) -> bool {
        self.geometry == Geometry::of(picture)
    }

    /// Width, height and RGB bytes (`[height, width, 3]`) of the picture, upright. `picture` is
    /// empty afterwards.
    ///
    /// # Errors
    /// FFmpeg's error as text.
    pub(super) fn convert(&mut self, picture: &mut Video) -> Result<(u32, u32, Vec<u8>), String> {
        let time = picture.timestamp();
        picture.set_pts(time);
        let mut converted = self.chain.run(picture).map_err(failed)?;
        // `vflip` turns a picture that is RGB already by a negative stride: a copy has a positive one.
        if (converted.stride(0) as isize) < 0 {
            converted = converted.clone();
        }
        let row_bytes = converted.width() as usize * 3;
        let mut rgb = Vec::with_capacity(row_bytes * converted.height() as usize);
        for row in converted.data(0).chunks_exact(converted.stride(0)) {
            rgb.extend_from_slice(&row[..row_bytes]);
        }
        Ok((converted.width(), converted.height(), rgb))
    }
}

fn failed(error: String) -> String {
    format!("conversion to RGB: {error}")
}

/// A display matrix from its bytes: nine numbers, the columns `a b u`, `c d v` in 16.16 fixed point.
fn matrix(bytes: &[u8]) -> Option<[i32; 9]> {
    let (values, _) = bytes.as_chunks::<4>();
    let values: &[[u8; 4]; 9] = values.first_chunk()?;
    Some(values.map(i32::from_ne_bytes))
}

/// Degrees by which the matrix turns a picture clockwise; `None` if it squeezes an axis to nothing.
fn clockwise_degrees(matrix: &[i32; 9]) -> Option<f64> {
    let [a, b, c, d] = [0, 1, 3, 4].map(|i| f64::from(matrix[i]) / 65536.0);
    let (x_scale, y_scale) = (a.hypot(c), b.hypot(d));
    if x_scale == 0.0 || y_scale == 0.0 {
        return None;
    }
    Some((b / y_scale).atan2(a / x_scale).to_degrees())
}

/// The filters that turn a frame upright, as the FFmpeg command chooses them, each with a comma
/// behind it.
fn rotation(matrix: &[i32; 9]) -> String {
    // Without an angle the command leaves the frame as it is.
    let Some(degrees) = clockwise_degrees(matrix) else {
        return String::new();
    };
    let theta = degrees.round();
    // 0.9 degrees of slack below a whole turn, as the command has.
    let theta = theta - 360.0 * ((theta + 0.9) / 360.0).floor();
    let near = |angle: f64| (theta - angle).abs() < 1.0;
    let mut filters = String::new();
    if near(90.0) {
        filters += match matrix[3] > 0 {
            true => "transpose=cclock_flip,",
            false => "transpose=clock,",
        };
    } else if near(180.0) {
        if matrix[0] < 0 {
            filters += "hflip,";
        }
        if matrix[4] < 0 {
            filters += "vflip,";
        }
    } else if near(270.0) {
        filters += match matrix[3] < 0 {
            true => "transpose=clock_flip,",
            false => "transpose=cclock,",
        };
    } else if theta.abs() > 1.0 {
        filters += &format!("rotate={theta:.6}*PI/180,");
    } else if matrix[4] < 0 {
        filters += "vflip,";
    }
    filters
}
