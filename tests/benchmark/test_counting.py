import pytest
import torch
import torch.nn.functional as F

from blurdiff.benchmark.counting import count

torch.set_num_threads(1)


def test_matrix_product():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert count(lambda: a @ b) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_convolution_and_its_gradients():
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3, requires_grad=True)
    forward, _ = count(lambda: F.conv2d(x, weight, padding=1))
    assert forward == 2 * 2 * 8 * 8 * 4 * 3 * 9
    both, _ = count(lambda: F.conv2d(x, weight, padding=1).sum().backward())
    assert both == 2 * forward  # the gradient of the weights; none is wanted of the images


@pytest.mark.parametrize("backward", [False, True])
def test_attention_of_a_cpu_is_counted_as_that_of_a_gpu(backward):
    batch, heads, tokens, width = 2, 3, 16, 8
    q, k, v = (torch.randn(batch, heads, tokens, width, requires_grad=backward) for _ in range(3))

    def work():
        out = F.scaled_dot_product_attention(q, k, v)
        if backward:
            out.sum().backward()

    product = 2 * batch * heads * tokens * tokens * width
    # Backward: the weights again, and two products for the gradients of each of the two.
    assert count(work)[0] == product * (2 + 5 * backward)


def test_bytes_are_those_read_and_written():
    x, y = torch.zeros(10), torch.zeros(10)
    assert count(lambda: x + y)[1] == 3 * 40
    assert count(lambda: x.add_(y))[1] == 3 * 40
    assert count(lambda: x.view(2, 5).t()[0])[1] == 0
    assert count(lambda: torch.empty(1000))[1] == 0
    assert count(lambda: torch.zeros(10))[1] == 40


def test_expanded_tensors_have_few_bytes():
    x, out = torch.zeros(1), torch.zeros(1000)
    # The one number is read; `out` is named as an argument (counted as read) and written.
    assert count(lambda: out.copy_(x.expand(1000)))[1] == 4 + 2 * 4000


def test_lists_of_tensors():
    tensors = [torch.zeros(10), torch.zeros(20)]
    assert count(lambda: torch._foreach_mul_(tensors, 2.0))[1] == 2 * 4 * 30
