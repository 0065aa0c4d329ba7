//! Which slices are copied between tensors, for any device.

use std::collections::HashMap;

use super::{Element, Graph, GraphError, Tensor};

/// How slices are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Join {
    /// Chosen rows, one after the other along the first axis.
    Rows,
    /// All of each tensor, side by side along the second axis.
    Tokens,
}

/// What a graph that joins tensors depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub join: Join,
    pub element: Element,
    pub rank: usize,
    pub sources: usize,
}

/// Graphs that join tensors, made so far.
pub(super) type JoinGraphs = HashMap<Key, Box<dyn Graph>>;

/// The shape of a result, and its slices: the number of the source, the first byte there and the length in bytes.
pub(super) struct Plan {
    pub key: Key,
    pub shape: Vec<usize>,
    pub slices: Vec<(usize, usize, usize)>,
}

fn mismatch(name: &str, expected: String, got: String) -> GraphError {
    GraphError::Tensor {
        name: name.to_owned(),
        expected,
        got,
    }
}

/// Checks that the sources of `gather_rows` agree and that every row exists.
pub(super) fn plan_rows(sources: &[(&Tensor, Vec<usize>)]) -> Result<Plan, GraphError> {
    const NAME: &str = "gather_rows";
    let Some((first, _)) = sources.first() else {
        return Err(mismatch(
            NAME,
            "at least one source".to_owned(),
            "none".to_owned(),
        ));
    };
    let Some((_, tail)) = first.shape().split_first() else {
        return Err(mismatch(
            NAME,
            "tensors with rows".to_owned(),
            "a scalar".to_owned(),
        ));
    };
    let row_bytes = tail.iter().product::<usize>() * first.element().size();
    let mut slices = Vec::new();
    for (source, (tensor, rows)) in sources.iter().enumerate() {
        if tensor.element() != first.element() || tensor.shape().get(1..) != Some(tail) {
            return Err(mismatch(
                NAME,
                format!("{first:?} in all axes but the first"),
                format!("{tensor:?}"),
            ));
        }
        if let Some(row) = rows.iter().find(|&&row| row >= tensor.rows()) {
            return Err(mismatch(
                NAME,
                format!("rows below {}", tensor.rows()),
                format!("row {row}"),
            ));
        }
        slices.extend(rows.iter().map(|row| (source, row * row_bytes, row_bytes)));
    }
    let mut shape = vec![slices.len()];
    shape.extend(tail);
    let key = Key {
        join: Join::Rows,
        element: first.element(),
        rank: shape.len(),
        sources: sources.len(),
    };
    Ok(Plan { key, shape, slices })
}

/// Checks that the tensors of `concat_tokens` agree.
pub(super) fn plan_tokens(tensors: &[&Tensor]) -> Result<Plan, GraphError> {
    const NAME: &str = "concat_tokens";
    let Some(first) = tensors.first() else {
        return Err(mismatch(
            NAME,
            "at least one tensor".to_owned(),
            "none".to_owned(),
        ));
    };
    let &[rows, _, ref tail @ ..] = first.shape() else {
        return Err(mismatch(
            NAME,
            "tensors with rows and tokens".to_owned(),
            format!("{first:?}"),
        ));
    };
    let token_bytes = tail.iter().product::<usize>() * first.element().size();
    let mut tokens = 0;
    for tensor in tensors {
        let agrees = tensor.element() == first.element()
            && tensor.rows() == rows
            && tensor.shape().get(2..) == Some(tail);
        if !agrees {
            return Err(mismatch(
                NAME,
                format!("{first:?} in all axes but the second"),
                format!("{tensor:?}"),
            ));
        }
        tokens += tensor.shape()[1];
    }
    let mut slices = Vec::with_capacity(rows * tensors.len());
    for row in 0..rows {
        for (source, tensor) in tensors.iter().enumerate() {
            let bytes = tensor.shape()[1] * token_bytes;
            slices.push((source, row * bytes, bytes));
        }
    }
    let mut shape = vec![rows, tokens];
    shape.extend(tail);
    let key = Key {
        join: Join::Tokens,
        element: first.element(),
        rank: shape.len(),
        sources: tensors.len(),
    };
    Ok(Plan { key, shape, slices })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        Tensor::new(Element::F16, shape.to_vec(), Arc::new(()))
    }

    #[test]
    fn rows_of_several_tensors_keep_their_order() {
        let (a, b) = (tensor(&[3, 2, 4]), tensor(&[2, 2, 4]));
        let plan = plan_rows(&[(&a, vec![2, 0]), (&b, vec![1])]).unwrap();
        assert_eq!(plan.shape, [3, 2, 4]);
        assert_eq!(plan.slices, [(0, 32, 16), (0, 0, 16), (1, 16, 16)]);
    }

    #[test]
    fn a_row_past_the_end_and_other_shapes_are_refused() {
        let (a, b) = (tensor(&[3, 2, 4]), tensor(&[3, 1, 4]));
        assert!(plan_rows(&[(&a, vec![3])]).is_err());
        assert!(plan_rows(&[(&a, vec![0]), (&b, vec![0])]).is_err());
        assert!(plan_rows(&[]).is_err());
    }

    #[test]
    fn tokens_of_a_row_stand_side_by_side() {
        let (a, b) = (tensor(&[2, 1, 4]), tensor(&[2, 3, 4]));
        let plan = plan_tokens(&[&a, &b]).unwrap();
        assert_eq!(plan.shape, [2, 4, 4]);
        assert_eq!(plan.slices, [(0, 0, 8), (1, 0, 24), (0, 8, 8), (1, 24, 24)]);
        assert!(plan_tokens(&[&a, &tensor(&[1, 3, 4])]).is_err());
    }
}
