"""Networks: broadcasting over leading dimensions, the rule of initialisation, the places of pixels and biases."""

import math

import pytest
import torch
from torch import nn

from ppvae.errors import OptionError
from ppvae.models import MLP, ConvDecoder, ConvEncoder, Layer, Neuron

NETWORKS = [
    pytest.param(lambda: MLP(35, (7, 6), 4), 35, id="mlp"),
    pytest.param(lambda: MLP(35, (), 4), 35, id="affine"),
    pytest.param(lambda: ConvEncoder((7, 5), 4), 35, id="conv-encoder"),
    pytest.param(lambda: ConvDecoder(3, (7, 5), outputs_per_pixel=2), 3, id="conv-decoder"),
]


def test_neuron_is_affine_map_and_nonlinearity():
    neuron = Neuron(3, nn.Sigmoid)
    x = torch.randn(4, 2, 3)
    by_hand = 1 / (1 + torch.exp(-(x @ neuron[0].weight[0] + neuron[0].bias[0])))
    torch.testing.assert_close(neuron(x), by_hand)


def test_layer_is_neurons_side_by_side():
    layer, x = Layer(3, 5), torch.randn(4, 3)
    neurons = []
    for row in range(5):
        neuron = Neuron(3)
        neuron[0].load_state_dict({"weight": layer[0].weight[row : row + 1], "bias": layer[0].bias[row : row + 1]})
        neurons.append(neuron)
    torch.testing.assert_close(layer(x), torch.stack([neuron(x) for neuron in neurons], dim=-1))


def test_mlp_is_its_formula():
    network, x = MLP(3, (4,), 2), torch.randn(5, 3)
    first, last = network[0][0], network[1]
    h = torch.tanh(x @ first.weight.T + first.bias)
    torch.testing.assert_close(network(x), h @ last.weight.T + last.bias)


@pytest.mark.parametrize(("make", "in_features"), NETWORKS)
def test_broadcasts_over_leading_dimensions(make, in_features):
    network = make()
    x = torch.randn(2, 3, 4, in_features)
    together = network(x)
    looped = torch.stack([torch.stack([torch.stack([network(row) for row in rows]) for rows in block]) for block in x])
    assert together.shape == (2, 3, 4, network.output_bias.numel())
    torch.testing.assert_close(together, looped, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("make", "in_features"), NETWORKS)
def test_output_bias_shifts_the_output(make, in_features):
    network, x = make(), torch.randn(6, in_features)
    before = network(x)
    shift = torch.randn(network.output_bias.shape)
    with torch.no_grad():
        network.output_bias.add_(shift)
    torch.testing.assert_close(network(x), before + shift)


# fan_in and fan_out by hand: for a convolution, channels times the pixels of its kernel.
@pytest.mark.parametrize(
    ("affine", "fans"),
    [
        pytest.param(lambda: MLP(300, (), 200)[-1], 300 + 200, id="linear"),
        pytest.param(lambda: Layer(300, 200)[0], 300 + 200, id="layer"),
        pytest.param(lambda: ConvEncoder((8, 8), 4, (64, 128)).convolutions[2], (64 + 128) * 3 * 3, id="conv"),
        pytest.param(lambda: ConvDecoder(4, (8, 8), 1, (64, 32)).convolutions[2], (64 + 32) * 4 * 4, id="transposed"),
    ],
)
def test_weights_start_from_glorots_rule(affine, fans):
    affine = affine()
    weight, bound = affine.weight.detach().flatten(), math.sqrt(6 / fans)
    assert weight.abs().max() <= bound
    # U(−a, a) has mean 0, variance a²/3, and (w/a)² has variance 4/45. Two z-tests at 5 standard errors: a false-alarm
    # rate of 1.2e-6 each; the seed is fixed.
    n = weight.numel()
    assert abs(weight.mean()) < 5 * bound / math.sqrt(3 * n)
    assert abs((weight / bound).square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)
    assert (affine.bias == 0).all()


@pytest.mark.parametrize("image_shape", [(8, 8), (28, 28), (7, 5), (1, 1)])
@pytest.mark.parametrize("outputs_per_pixel", [1, 3])
def test_conv_shapes(image_shape, outputs_per_pixel):
    height, width = image_shape
    encoder, decoder = ConvEncoder(image_shape, 6), ConvDecoder(6, image_shape, outputs_per_pixel)
    outputs = encoder(torch.randn(4, 5, height * width))
    assert outputs.shape == (4, 5, 6)
    assert decoder(outputs).shape == (4, 5, height * width * outputs_per_pixel)


def test_conv_decoder_keeps_outputs_of_a_pixel_side_by_side():
    height, width, k = 6, 5, 3
    decoder, z = ConvDecoder(2, (height, width), k), torch.randn(2)
    channels = decoder.convolutions(z[None])[0]
    output = decoder(z)
    for row, column, j in [(0, 0, 2), (3, 4, 1), (5, 0, 0)]:
        assert output[(row * width + column) * k + j] == channels[j, row, column]


def test_conv_encoder_reads_rows_as_pictures():
    # Two strides of 2 under kernels of 3 give each output a view of 7 x 7 pixels; the first one's is centred at
    # pixel (0, 0) and reaches as far as (3, 3), in both directions of a picture that is not square.
    encoder = ConvEncoder((12, 8), 1)
    x = torch.randn(96, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder.convolutions[:4](x.reshape(1, 1, 12, 8))[0, :, 0, 0].sum(), x)
    seen = (gradient.reshape(12, 8) != 0).nonzero().max(0).values
    assert seen.tolist() == [3, 3]
    torch.testing.assert_close(encoder(x), encoder.affine(encoder.convolutions(x.reshape(1, 1, 12, 8)))[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(0, (3,), 2), "in_features is 0; give a whole number of at least 1."),
        (lambda: MLP(2, (3, 0), 2), "hidden width is 0; give"),
        (lambda: MLP(2, (3,), 2.0), "out_features is 2.0; give"),  # type: ignore[arg-type]
        (lambda: Layer(2, -1), "out_features is -1; give"),
        (lambda: ConvEncoder((8, 8, 1), 4), r"image_shape is \(8, 8, 1\)"),  # type: ignore[arg-type]
        (lambda: ConvEncoder((8, 8), 4, channels=(4, 0)), "channels is 0; give"),
        (lambda: ConvDecoder(2, (0, 8)), "height is 0; give"),
        (lambda: ConvDecoder(2, (8, 8), True), "outputs_per_pixel is True; give"),
    ],
)
def test_sizes_are_checked(make, message):
    with pytest.raises(OptionError, match=message):
        make()
