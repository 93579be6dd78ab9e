//! A list that is almost always empty or of one element, kept where it is needed without an allocation.
//!
//! Sessions have one subscription, messages one recipient; a `Vec` would cost an allocation for each.

/// None, one, or many.
#[derive(Debug, Default)]
pub(super) enum Few<T> {
    /// Empty.
    #[default]
    None,
    /// One element, in place.
    One(T),
    /// More than one, or once more than one.
    #[expect(
        clippy::box_collection,
        reason = "a third of the size: this list is a field of every session and message"
    )]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    /// Append.
    pub(super) fn push(&mut self, value: T) {
        *self = match std::mem::take(self) {
            Few::None => Few::One(value),
            Few::One(first) => Few::Many(Box::new(vec![first, value])),
            Few::Many(mut all) => {
                all.push(value);
                Few::Many(all)
            }
        };
    }

    /// All elements, in order of arrival unless `swap_remove` moved one.
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Few::None => &[],
            Few::One(value) => std::slice::from_ref(value),
            Few::Many(all) => all,
        }
    }

    /// All elements, to change.
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Few::None => &mut [],
            Few::One(value) => std::slice::from_mut(value),
            Few::Many(all) => all,
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Take out that element; the last one takes its place.
    pub(super) fn swap_remove(&mut self, index: usize) -> T {
        match std::mem::take(self) {
            Few::None => unreachable!("the index is below the length, which is 0"),
            Few::One(value) => {
                assert_eq!(index, 0);
                value
            }
            Few::Many(mut all) => {
                let value = all.swap_remove(index);
                if !all.is_empty() {
                    *self = Few::Many(all);
                }
                value
            }
        }
    }

    /// Take out the last element.
    pub(super) fn pop(&mut self) -> Option<T> {
        let length = self.len();
        (length > 0).then(|| self.swap_remove(length - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn a_list_keeps_what_was_pushed_and_gives_back_what_is_removed() {
        let mut list = Few::None;
        for n in 0..4 {
            list.push(n);
        }
        assert_eq!(list.as_slice(), [0, 1, 2, 3]);
        assert_eq!(list.swap_remove(1), 1);
        assert_eq!(list.as_slice(), [0, 3, 2]);
        assert_eq!([list.pop(), list.pop(), list.pop(), list.pop()], [Some(2), Some(3), Some(0), None]);
        assert_eq!(list.len(), 0);
    }
}
