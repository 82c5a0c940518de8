"""Recurrent networks by hand and by module."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from zoo.specimen import Planted, Specimen, filled, scaled


@torch.no_grad()
def _set(model, name, function, *index):
    function(model.get_parameter(name)[index])


def part(name, value, *index):
    """Return what sets a part of a parameter to a number."""
    return lambda model: _set(model, name, lambda values: values.fill_(value), *index)


def every(ending, function):
    """Return what changes all parameters with such a name."""
    return lambda model: [_set(model, n, function) for n, _ in model.named_parameters() if n.endswith(ending)]


def constant(start, value):
    """Return what sets all parameters whose names start so to a number."""
    return lambda model: [p.data.fill_(value) for n, p in model.named_parameters() if n.startswith(start)]


def both(*functions):
    """Return what does all that several do."""
    return lambda model: [function(model) for function in functions]


def waves(n, steps, dim, classes):
    """Return noisy sines, standardized, and the class that is their frequency."""
    labels, phase = torch.randint(classes, (n,)), 6.28 * torch.rand(n, 1, dim)
    t = torch.arange(steps)[None, :, None] / steps
    x = torch.sin(2 * math.pi * (1 + labels[:, None, None]) * t + phase) + 0.3 * torch.randn(n, steps, dim)
    return (x - x.mean()) / x.std(), labels


def sentences(n, steps, vocabulary, classes):
    """Return token ids, and the class whose share of the vocabulary is the most frequent."""
    labels = torch.randint(classes, (n,))
    topical = torch.randint(vocabulary // classes, (n, steps)) * classes + labels[:, None]
    return torch.where(torch.rand(n, steps) < 0.5, topical, torch.randint(vocabulary, (n, steps))), labels


class CustomLSTM(nn.Module):
    def __init__(self, input_sz, hidden_sz):
        super().__init__()
        self.input_sz, self.hidden_size = input_sz, hidden_sz
        self.W = nn.Parameter(torch.Tensor(input_sz, hidden_sz * 4))
        self.U = nn.Parameter(torch.Tensor(hidden_sz, hidden_sz * 4))
        self.bias = nn.Parameter(torch.Tensor(hidden_sz * 4))
        self.init_weights()

    def init_weights(self):
        stdv = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            weight.data.uniform_(-stdv, stdv)

    def forward(self, x, init_states=None):
        bs, seq_sz, _ = x.size()
        hidden_seq = []
        if init_states is None:
            h_t, c_t = (torch.zeros(bs, self.hidden_size).to(x.device) for _ in range(2))
        else:
            h_t, c_t = init_states
        HS = self.hidden_size
        for t in range(seq_sz):
            x_t = x[:, t, :]
            gates = x_t @ self.W + h_t @ self.U + self.bias
            i_t, f_t = torch.sigmoid(gates[:, :HS]), torch.sigmoid(gates[:, HS : HS * 2])
            g_t, o_t = torch.tanh(gates[:, HS * 2 : HS * 3]), torch.sigmoid(gates[:, HS * 3 :])
            c_t = f_t * c_t + i_t * g_t
            h_t = o_t * torch.tanh(c_t)
            hidden_seq.append(h_t.unsqueeze(0))
        hidden_seq = torch.cat(hidden_seq, dim=0)
        return hidden_seq.transpose(0, 1).contiguous(), (h_t, c_t)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = CustomLSTM(4, 32)
        self.fc1 = nn.Linear(32, 5)

    def forward(self, x):
        _, (h_n, _c) = self.lstm(x)
        return self.fc1(h_n)


def lstm_by_hand():
    return Net(), *waves(32, 20, 4, 5), None


class GRUCell(nn.Module):
    def __init__(self, input_size, hidden_size, bias=True):
        super().__init__()
        self.hidden_size = hidden_size
        self.x2h = nn.Linear(input_size, 3 * hidden_size, bias=bias)
        self.h2h = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)
        std = 1.0 / hidden_size**0.5
        for w in self.parameters():
            w.data.uniform_(-std, std)

    def forward(self, input, hx):
        x_reset, x_upd, x_new = self.x2h(input).chunk(3, 1)
        h_reset, h_upd, h_new = self.h2h(hx).chunk(3, 1)
        reset_gate = torch.sigmoid(x_reset + h_reset)
        update_gate = torch.sigmoid(x_upd + h_upd)
        new_gate = torch.tanh(x_new + reset_gate * h_new)
        return update_gate * hx + (1 - update_gate) * new_gate


class GRU(nn.Module):
    def __init__(self, input_size, hidden_size, num_layers, output_size):
        super().__init__()
        self.rnn_cell_list = nn.ModuleList(
            GRUCell(hidden_size if i else input_size, hidden_size) for i in range(num_layers)
        )
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, input):
        hidden = [torch.zeros(input.size(0), cell.hidden_size) for cell in self.rnn_cell_list]
        for t in range(input.size(1)):
            inp = input[:, t]
            for layer, cell in enumerate(self.rnn_cell_list):
                hidden[layer] = inp = cell(inp, hidden[layer])
        return self.fc(hidden[-1])


def gru_by_hand():
    return GRU(4, 24, 2, 5), *waves(32, 12, 4, 5), None


class SentimentRNN(nn.Module):
    def __init__(self, vocab_size, embedding_dim, hidden_dim, output_dim, kind, **kwargs):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.rnn = getattr(nn, kind)(embedding_dim, hidden_dim, batch_first=True, **kwargs)
        self.fc = nn.Linear(hidden_dim * (2 if self.rnn.bidirectional else 1), output_dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, text):
        embedded = self.dropout(self.embedding(text))
        output, hidden = self.rnn(embedded)
        if isinstance(hidden, tuple):
            return self.fc(self.dropout(hidden[0][-1]))
        return {"logits": self.fc(output.mean(dim=1)), "hidden": hidden}


def lstm_classifier():
    return SentimentRNN(60, 24, 32, 4, "LSTM", num_layers=2), *sentences(32, 16, 60, 4), None


def gru_classifier():
    return SentimentRNN(60, 24, 16, 4, "GRU", bidirectional=True), *sentences(32, 16, 60, 4), None


class OrthogonalRNN(nn.Module):
    """h <- tanh(V x + W h + b), read out after the last step (Henaff, Szlam and LeCun)."""

    def __init__(self, n_in=4, n_hid=48, n_out=5):
        super().__init__()
        self.V = nn.Parameter(torch.randn(n_hid, n_in) / (3 * n_in) ** 0.5)
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(n_hid, n_hid)))
        self.b = nn.Parameter(torch.zeros(n_hid))
        self.readout = nn.Linear(n_hid, n_out)
        nn.init.xavier_uniform_(self.readout.weight)

    def forward(self, xs):
        h = xs.new_zeros(xs.shape[0], self.W.shape[0])
        for x in xs.unbind(1):
            h = torch.tanh(F.linear(x, self.V) + F.linear(h, self.W, self.b))
        return self.readout(h)


def orthogonal_rnn():
    return OrthogonalRNN(), *waves(48, 20, 4, 5), None


SPECIMENS = (
    Specimen(
        "lstm_by_hand",
        lstm_by_hand,
        (
            Planted("recurrent weights x 30", scaled("lstm.U", 30), ("lstm",)),
            Planted("output gates shut", part("lstm.bias", -12, slice(96, None)), ("lstm",)),
            Planted("one constant for all", constant("lstm.", 0.1), ("lstm",)),
        ),
        classes=5,
    ),
    Specimen(
        "gru_by_hand",
        gru_by_hand,
        (
            Planted(
                "update gates stuck",
                part("rnn_cell_list.1.x2h.bias", 12, slice(24, 48)),
                ("rnn_cell_list.1",),
            ),
            Planted("recurrent weights x 30", every("h2h.weight", lambda w: w.mul_(30)), ("rnn_cell_list",)),
            Planted("zero input weights", filled("rnn_cell_list.0.x2h.weight", 0), ("rnn_cell_list.0",)),
        ),
        classes=5,
    ),
    Specimen(
        "lstm_classifier",
        lstm_classifier,
        (
            Planted("constant embedding", filled("embedding.weight", 0.1), ("embedding",)),
            Planted("recurrent weights x 30", every("weight_hh_l1", lambda w: w.mul_(30)), ("rnn",)),
            Planted("output gates shut", part("rnn.bias_ih_l1", -12, slice(96, None)), ("rnn",)),
        ),
        classes=4,
    ),
    Specimen(
        "gru_classifier",
        gru_classifier,
        (
            Planted("embedding x 0.001", scaled("embedding.weight", 0.001), ("embedding",)),
            Planted("input weights x 50", scaled("rnn.weight_ih_l0", 50), ("rnn",)),
            Planted("zero embedding", filled("embedding.weight", 0), ("embedding",)),
        ),
        classes=4,
    ),
    Specimen(
        "orthogonal_rnn",
        orthogonal_rnn,
        (
            Planted("recurrent x 4", scaled("W", 4), ("W",)),
            Planted("recurrent x 0.2", scaled("W", 0.2), ("W",)),
            Planted("input weights x 30", scaled("V", 30), ("V",)),
        ),
        classes=5,
    ),
)
