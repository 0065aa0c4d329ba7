//! Decoded frames to RGB, through the filter graph that the FFmpeg command builds: source, rotation
//! by the display matrix, `null`, `format=rgb24`, sink, with bicubic chroma resampling.

use std::ffi::{CStr, CString, c_int};
use std::ptr;

use ffmpeg_next::ffi;

use super::av::{self, Graph, Picture};

/// A filter graph for frames of one size, pixel format and orientation. (Colour space and range are
/// read from each frame.)
pub struct Converter {
    // The source and sink belong to the graph.
    source: *mut ffi::AVFilterContext,
    sink: *mut ffi::AVFilterContext,
    graph: Graph,
    geometry: Geometry,
    output: Picture,
    scratch: Picture,
}

// SAFETY: the raw pointers point into the graph, which is owned and moves along.
unsafe impl Send for Converter {}

#[derive(PartialEq)]
struct Geometry {
    width: c_int,
    height: c_int,
    format: c_int,
    /// Of the frame itself; the stream's matrix holds where a frame has none.
    matrix: Option<[i32; 9]>,
}

impl Geometry {
    fn of(picture: &Picture) -> Self {
        // SAFETY: the picture is alive; a display matrix is nine 32-bit integers, which its size
        // is checked for.
        unsafe {
            let frame = picture.ptr();
            let side = ffi::av_frame_get_side_data(
                frame,
                ffi::AVFrameSideDataType::AV_FRAME_DATA_DISPLAYMATRIX,
            );
            let matrix = (!side.is_null() && (*side).size >= size_of::<[i32; 9]>())
                .then(|| (*side).data.cast::<[i32; 9]>().read_unaligned());
            Self {
                width: (*frame).width,
                height: (*frame).height,
                format: (*frame).format,
                matrix,
            }
        }
    }
}

impl Converter {
    /// Builds the graph for frames like `picture`.
    ///
    /// `input` and `stream` are a live input and the index of one of its streams.
    pub fn new(
        input: *mut ffi::AVFormatContext,
        stream: usize,
        picture: &Picture,
    ) -> Result<Self, String> {
        let geometry = Geometry::of(picture);
        let memory = || "out of memory".to_owned();
        // SAFETY: the graph owns the filters made in it; all pointers are checked, and the
        // side data of the stream is read with its size checked.
        unsafe {
            let graph = Graph::own(ffi::avfilter_graph_alloc()).ok_or_else(memory)?;
            (*graph.ptr()).scale_sws_opts = ffi::av_strdup(c"flags=bicubic".as_ptr());

            let stream = *(*input).streams.add(stream);
            let base = (*stream).time_base;
            let mut aspect = (*picture.ptr()).sample_aspect_ratio;
            if (*stream).sample_aspect_ratio.num != 0 {
                aspect = (*stream).sample_aspect_ratio;
            }
            if aspect.den == 0 {
                aspect = ffi::AVRational { num: 0, den: 1 };
            }
            let rate = ffi::av_guess_frame_rate(input, stream, ptr::null_mut());
            let mut arguments = format!(
                "video_size={}x{}:pix_fmt={}:time_base={}/{}:pixel_aspect={}/{}",
                geometry.width,
                geometry.height,
                geometry.format,
                base.num,
                base.den,
                aspect.num,
                aspect.den
            );
            if rate.num != 0 && rate.den != 0 {
                arguments += &format!(":frame_rate={}/{}", rate.num, rate.den);
            }
            let source = add(&graph, ptr::null_mut(), c"buffer", &arguments)?;

            let matrix = geometry.matrix.or_else(|| {
                let mut size = 0usize;
                let data = ffi::av_stream_get_side_data(
                    stream,
                    ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX,
                    &raw mut size,
                );
                (!data.is_null() && size >= size_of::<[i32; 9]>())
                    .then(|| data.cast::<[i32; 9]>().read_unaligned())
            });
            let mut last = source;
            for (name, arguments) in rotation(matrix) {
                last = add(&graph, last, name, &arguments)?;
            }
            last = add(&graph, last, c"null", "")?;
            last = add(&graph, last, c"format", "pix_fmts=rgb24")?;
            let sink = add(&graph, last, c"buffersink", "")?;
            check(ffi::avfilter_graph_config(graph.ptr(), ptr::null_mut()))?;
            Ok(Self {
                source,
                sink,
                graph,
                geometry,
                output: Picture::new().ok_or_else(memory)?,
                scratch: Picture::new().ok_or_else(memory)?,
            })
        }
    }

    /// Whether the graph was built for frames like `picture`.
    pub fn fits(&self, picture: &Picture) -> bool {
        self.geometry == Geometry::of(picture)
    }

    /// Width, height and RGB bytes of the picture, upright.
    pub fn convert(&mut self, picture: &Picture) -> Result<(u32, u32, Vec<u8>), String> {
        debug_assert!(!self.graph.ptr().is_null());
        // SAFETY: source and sink live in `self.graph`; the frames are owned and released before
        // they are filled again. The output is rgb24: one plane of `height` rows of `linesize`
        // bytes, of which `3 * width` hold pixels.
        unsafe {
            ffi::av_frame_unref(self.scratch.ptr());
            check(ffi::av_frame_ref(self.scratch.ptr(), picture.ptr()))?;
            (*self.scratch.ptr()).pts = (*picture.ptr()).best_effort_timestamp;
            check(ffi::av_buffersrc_add_frame_flags(
                self.source,
                self.scratch.ptr(),
                ffi::AV_BUFFERSRC_FLAG_PUSH as c_int,
            ))?;
            ffi::av_frame_unref(self.output.ptr());
            check(ffi::av_buffersink_get_frame(self.sink, self.output.ptr()))?;
            let frame = self.output.ptr();
            let (Ok(width), Ok(height), Ok(stride)) = (
                usize::try_from((*frame).width),
                usize::try_from((*frame).height),
                isize::try_from((*frame).linesize[0]),
            ) else {
                return Err("the converted frame has no size".to_owned());
            };
            let row_bytes = width * 3;
            let mut rgb = Vec::with_capacity(row_bytes * height);
            for y in 0..height {
                let row = (*frame).data[0].offset(stride * y as isize);
                rgb.extend_from_slice(std::slice::from_raw_parts(row, row_bytes));
            }
            ffi::av_frame_unref(frame);
            Ok((width as u32, height as u32, rgb))
        }
    }
}

/// The filters that turn a frame upright, as the FFmpeg command chooses them.
fn rotation(matrix: Option<[i32; 9]>) -> Vec<(&'static CStr, String)> {
    let Some(matrix) = matrix else {
        return Vec::new();
    };
    // SAFETY: the matrix has the nine entries that the call reads.
    let counter_clockwise = unsafe { ffi::av_display_rotation_get(matrix.as_ptr()) };
    // A matrix of no size has no angle; the command then leaves the frame as it is.
    if counter_clockwise.is_nan() {
        return Vec::new();
    }
    let theta = -counter_clockwise.round();
    // 0.9 degrees of slack below a whole turn, as the command has.
    let theta = theta - 360.0 * ((theta + 0.9) / 360.0).floor();
    let near = |angle: f64| (theta - angle).abs() < 1.0;
    let none = String::new;
    let mut filters = Vec::new();
    if near(90.0) {
        let way = if matrix[3] > 0 {
            "cclock_flip"
        } else {
            "clock"
        };
        filters.push((c"transpose", way.to_owned()));
    } else if near(180.0) {
        if matrix[0] < 0 {
            filters.push((c"hflip", none()));
        }
        if matrix[4] < 0 {
            filters.push((c"vflip", none()));
        }
    } else if near(270.0) {
        let way = if matrix[3] < 0 {
            "clock_flip"
        } else {
            "cclock"
        };
        filters.push((c"transpose", way.to_owned()));
    } else if theta.abs() > 1.0 {
        filters.push((c"rotate", format!("{theta:.6}*PI/180")));
    } else if matrix[4] < 0 {
        filters.push((c"vflip", none()));
    }
    filters
}

/// Makes a filter in the graph and links it behind `last`, if that is not null.
///
/// # Safety
/// `last` is null or a filter of `graph`.
unsafe fn add(
    graph: &Graph,
    last: *mut ffi::AVFilterContext,
    name: &CStr,
    arguments: &str,
) -> Result<*mut ffi::AVFilterContext, String> {
    let arguments = CString::new(arguments).map_err(|_| "a zero byte in a filter".to_owned())?;
    let mut filter = ptr::null_mut();
    // SAFETY: names and arguments are C strings; a null filter definition is an error of the call.
    unsafe {
        let code = ffi::avfilter_graph_create_filter(
            &raw mut filter,
            ffi::avfilter_get_by_name(name.as_ptr()),
            name.as_ptr(),
            arguments.as_ptr(),
            ptr::null_mut(),
            graph.ptr(),
        );
        check(code).map_err(|said| format!("filter {}: {said}", name.to_string_lossy()))?;
        if !last.is_null() {
            check(ffi::avfilter_link(last, 0, filter, 0))?;
        }
    }
    Ok(filter)
}

fn check(code: c_int) -> Result<(), String> {
    if code < 0 {
        return Err(format!("conversion to RGB: {}", av::describe(code)));
    }
    Ok(())
}
