//! Several requests as one batch, row after row, and its outputs given back to each.

use rialto_protocol::job::{Datatype, Tensor};

/// Whether two requests differ in nothing but their rows. Datatypes are the signature's.
pub(super) fn alike(one: &[Tensor], other: &[Tensor]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .all(|tensor| named(other, &tensor.name).is_some_and(|same| same.shape.get(1..) == tensor.shape.get(1..)))
}

/// One request of the rows of all, which are alike. `None` when there is none, or a tensor has no rows.
pub(super) fn join(requests: &[&[Tensor]]) -> Option<Vec<Tensor>> {
    let (first, rest) = requests.split_first()?;
    let mut joined = first.to_vec();
    for tensor in &mut joined {
        for request in rest {
            let more = named(request, &tensor.name)?;
            *tensor.shape.first_mut()? += more.rows();
            tensor.data.extend_from_slice(&more.data);
        }
    }
    Some(joined)
}

/// The tensors of a batch, cut after so many rows each. `None` when one of them has not that many rows altogether: then
/// its first dimension is not the batch.
pub(super) fn split(tensors: &[Tensor], rows: &[u64]) -> Option<Vec<Vec<Tensor>>> {
    let total: u64 = rows.iter().sum();
    let mut parts: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(tensors.len())).collect();
    for tensor in tensors {
        if tensor.shape.first() != Some(&total) || total == 0 {
            return None;
        }
        let each = usize::try_from(tensor.shape.get(1..)?.iter().product::<u64>()).ok()?;
        let mut data = tensor.data.as_slice();
        for (part, rows) in parts.iter_mut().zip(rows) {
            let elements = each.checked_mul(usize::try_from(*rows).ok()?)?;
            let length = match tensor.datatype.width() {
                Some(width) => elements.checked_mul(width)?,
                None => strings_length(data, elements)?,
            };
            let (own, others) = data.split_at_checked(length)?;
            data = others;
            let mut shape = tensor.shape.clone();
            *shape.first_mut()? = *rows;
            part.push(Tensor {
                name: tensor.name.clone(),
                datatype: tensor.datatype,
                shape,
                data: own.to_vec(),
            });
        }
    }
    Some(parts)
}

/// Bytes of the first so many strings.
fn strings_length(data: &[u8], strings: usize) -> Option<usize> {
    let mut rest = data;
    for _ in 0..strings {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)?;
    }
    data.len().checked_sub(rest.len())
}

fn named<'t>(tensors: &'t [Tensor], name: &str) -> Option<&'t Tensor> {
    tensors.iter().find(|tensor| tensor.name == name)
}

/// Bytes of all tensors: a measure of how much work they are.
pub(super) fn bytes(tensors: &[Tensor]) -> u64 {
    let bytes = tensors.iter().map(|tensor| match tensor.datatype {
        // A string is work beyond its bytes.
        Datatype::Bytes => tensor.data.len().saturating_mul(4),
        _ => tensor.data.len(),
    });
    u64::try_from(bytes.fold(0, usize::saturating_add)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(name: &str, rows: u64, data: &[u8]) -> Tensor {
        Tensor {
            name: name.to_owned(),
            datatype: Datatype::Uint8,
            shape: vec![rows, data.len() as u64 / rows],
            data: data.to_vec(),
        }
    }

    fn words(name: &str, words: &[&str]) -> Tensor {
        let with_length =
            |word: &&str| [&u32::try_from(word.len()).unwrap().to_le_bytes()[..], word.as_bytes()].concat();
        Tensor {
            name: name.to_owned(),
            datatype: Datatype::Bytes,
            shape: vec![words.len() as u64],
            data: words.iter().flat_map(with_length).collect(),
        }
    }

    #[test]
    fn what_was_joined_is_given_back_to_each_whatever_the_order_of_its_tensors() {
        let one = vec![numbers("x", 1, &[1, 2, 3]), words("w", &["to"])];
        let other = vec![words("w", &["be", ""]), numbers("x", 2, &[4, 5, 6, 7, 8, 9])];
        assert!(alike(&one, &other));
        let joined = join(&[&one, &other]).unwrap();
        assert_eq!(joined[0], numbers("x", 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(joined[1], words("w", &["to", "be", ""]));
        let parts = split(&joined, &[1, 2]).unwrap();
        assert_eq!(parts[0], one);
        assert_eq!(parts[1], vec![other[1].clone(), other[0].clone()]);
    }

    #[test]
    fn other_shapes_are_not_alike_and_an_output_without_the_rows_is_not_cut() {
        assert!(!alike(&[numbers("x", 1, &[1, 2])], &[numbers("x", 1, &[1, 2, 3])]));
        assert!(!alike(&[numbers("x", 1, &[1])], &[numbers("y", 1, &[1])]));
        assert_eq!(split(&[numbers("x", 2, &[1, 2])], &[1, 2]), None);
        assert_eq!(split(&[words("w", &["a", "b"])], &[3]), None);
        let scalar = Tensor {
            shape: vec![],
            ..numbers("x", 1, &[1])
        };
        assert_eq!(split(&[scalar], &[1]), None);
    }
}
