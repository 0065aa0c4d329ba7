//! The kernels that attention nodes ran in, from the lines that the library prints with
//! `ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO=1`.

use std::collections::BTreeMap;

use super::facts::AttentionKernel;

/// The variable that makes the library's GPU operators print which kernel they use.
pub const VARIABLE: &str = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO";

/// First word of a line that names the graph to which the lines after it belong.
pub const GRAPH: &str = "snow-ort-graph";

/// The kernel that holds the whole matrix of attention scores. It runs out of memory with many tokens.
pub const MATERIALISING: &str = "MATH";

/// Counts nodes by graph and kernel, from lines such as `Operator=MultiHeadAttention Node=n DataType=fp16
/// SdpaKernel=FLASH_ATTENTION`. They belong to the graph that the last [`GRAPH`] line names. A node that ran several times in
/// a kernel counts once.
pub fn parse(text: &str) -> BTreeMap<String, Vec<AttentionKernel>> {
    let mut graph = String::new();
    let mut counted: BTreeMap<(String, AttentionKernel), Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(GRAPH) {
            graph = name.trim().to_owned();
            continue;
        }
        let field = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let (Some(operator), Some(kernel)) = (field("Operator"), field("SdpaKernel")) else {
            continue;
        };
        let kernel = AttentionKernel {
            operator: operator.to_owned(),
            dtype: field("DataType").unwrap_or_default().to_owned(),
            kernel: kernel.to_owned(),
            nodes: 0,
        };
        let nodes = counted.entry((graph.clone(), kernel)).or_default();
        let node = field("Node").unwrap_or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let mut kernels: BTreeMap<String, Vec<AttentionKernel>> = BTreeMap::new();
    for ((graph, kernel), nodes) in counted {
        kernels.entry(graph).or_default().push(AttentionKernel {
            nodes: nodes.len(),
            ..kernel
        });
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_by_graph_and_kernel() {
        let text = "snow-ort-graph vision_encoder\n\
            Operator=MultiHeadAttention Node=a DataType=fp16 SdpaKernel=FLASH_ATTENTION\n\
            Operator=MultiHeadAttention Node=b DataType=fp16 SdpaKernel=FLASH_ATTENTION\n\
            Operator=MultiHeadAttention Node=a DataType=fp16 SdpaKernel=FLASH_ATTENTION\n\
            another word of the library\n\
            snow-ort-graph memory_attention\n\
            Operator=MultiHeadAttention Node=c DataType=fp16 SdpaKernel=MATH\n";
        let kernels = parse(text);
        let shown = |graph: &str| -> Vec<(String, usize)> {
            let all = kernels[graph].iter();
            all.map(|k| (format!("{} {} {}", k.operator, k.dtype, k.kernel), k.nodes))
                .collect()
        };
        assert_eq!(
            shown("vision_encoder"),
            [("MultiHeadAttention fp16 FLASH_ATTENTION".to_owned(), 2)]
        );
        assert_eq!(
            shown("memory_attention"),
            [("MultiHeadAttention fp16 MATH".to_owned(), 1)]
        );
        assert_eq!(kernels.len(), 2);
    }
}
