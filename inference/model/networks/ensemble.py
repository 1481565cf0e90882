"""Several networks as one: their votes are counted inside the graph."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from conf.words import SEXES, VIEWS
from inference.model.networks.served import FITTED, ServedNetwork, probabilities_of
from training.network.checkpoint import Checkpoint
from training.network.lookup import MAX_AGE_YEARS

CALIBRATION = FITTED[:2]


class ServedLookup(nn.Module):
    """A member that knows age, sex and view alone, by a table of answers."""

    def __init__(self, table: Tensor, shifts: Tensor, temperatures: Tensor):
        """table: logits, (cells of training.network.lookup.SHAPE, findings). shifts, temperatures: see Calibration."""
        super().__init__()
        self.register_buffer("table", (table + shifts) / temperatures)

    def forward(self, codes: Tensor) -> Tensor:
        """Calibrated logits, (batch, findings). codes: the input `attributes` of a graph, (batch, 3) float32."""
        years = codes[:, 0]
        # Written so that every number that stands for no value, NaN too, is unknown.
        cells = torch.where(years >= 0, years.floor().clamp(max=MAX_AGE_YEARS), MAX_AGE_YEARS + 1.0)
        for column, words in ((1, SEXES), (2, VIEWS)):
            place = torch.full_like(years, len(words))
            for number in range(len(words)):
                place = torch.where(codes[:, column] == number, float(number), place)
            cells = cells * (len(words) + 1) + place
        return nn.functional.embedding(cells.long(), self.table)


class ServedEnsemble(nn.Module):
    """A graph's inputs to its outputs, as ServedNetwork, of several members.

    The probability is that of the members' weighted mean, calibrated once more; of classes, it is a softmax of the
    mean's logarithm divided by the temperature. The log-odds of a mean are no sum of the members' places, so the map is
    the weighted mean of the members' maps on the finest grid among them, moved so that its mean is the logit: it
    compares places with each other. The squared distance from the training data is the sum of the members'.
    """

    def __init__(
        self,
        networks: list[ServedNetwork],
        lookups: list[ServedLookup],
        votes: Tensor,
        grids: Tensor,
        shifts: Tensor,
        temperatures: Tensor,
        exclusive: bool = False,
    ):
        """votes: (members, findings), 0..1, sums 1, networks first. grids: (networks, 3) float64: first cell and step
        of a map, see measure_map_grid, and its cells per side. shifts, temperatures: (findings,), see Calibration.
        exclusive: whether the findings are classes, all of which have the same votes and temperature."""
        super().__init__()
        self.exclusive = exclusive
        self.networks, self.lookups = nn.ModuleList(networks), nn.ModuleList(lookups)
        self.grids = grids
        self.register_buffer("votes", votes.float())
        for name, values in zip(CALIBRATION, (shifts, temperatures), strict=True):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))
        finest = self.grids[self.finest]
        self.resized = []
        for place, grid in enumerate(self.grids):
            same = torch.equal(grid, finest)
            self.resized.append("" if same else f"onto_the_finest_{place}")
            if not same:
                self.register_buffer(self.resized[-1], resampling(grid, finest))

    @property
    def finest(self) -> int:
        """The network whose map has the smallest cells."""
        return int(self.grids[:, 1].argmin())

    def forward(self, pixels: Tensor, attributes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits, maps, distances = self.evidence(pixels, attributes)
        return probabilities_of(logits, self.exclusive), maps, distances

    def evidence(self, pixels: Tensor, attributes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Calibrated logits, maps and distances, as ServedNetwork.evidence."""
        logits, maps, squares = [], 0.0, 0.0
        for network, vote, matrix in zip(self.networks, self.votes, self.resized, strict=False):
            takes = network.classifier.tabular is not None
            logit, map_, distance = network.evidence(pixels, attributes if takes else None)
            logits.append(logit)
            if matrix:
                weights = getattr(self, matrix)
                map_ = weights @ map_ @ weights.T
            maps = maps + map_ * vote[:, None, None]
            squares = squares + distance.square()
        logits += [lookup(attributes) for lookup in self.lookups]
        count = count_votes_for_classes if self.exclusive else count_votes
        logits = (count(logits, self.votes) + self.shifts) / self.temperatures
        maps = maps - maps.mean(dim=(2, 3), keepdim=True) + logits[:, :, None, None]
        return logits, maps, squares.sqrt()

    def fitted(self) -> dict:
        """What was fitted to the trained members, and the calibration of the whole."""
        return {
            "members": [network.fitted() for network in self.networks],
            "grids": self.grids,
            **{name: getattr(self, name) for name in CALIBRATION},
        }


def build_ensemble(checkpoint: Checkpoint, fitted: dict) -> ServedEnsemble:
    """The members of the checkpoint as one. fitted: see ServedEnsemble.fitted."""
    films, tables = members_of(checkpoint)
    networks = [
        ServedNetwork(Checkpoint(**member["checkpoint"]).build(), **of_member)
        for member, of_member in zip(films, fitted["members"], strict=True)
    ]
    lookups = [
        ServedLookup(member["checkpoint"]["weights"]["table"], *(torch.tensor(member[name]) for name in CALIBRATION))
        for member in tables
    ]
    votes = torch.tensor([member["votes"] for member in (*films, *tables)])
    calibration = (fitted[name] for name in CALIBRATION)
    return ServedEnsemble(networks, lookups, votes, fitted["grids"], *calibration, checkpoint.exclusive)


def members_of(checkpoint: Checkpoint) -> tuple[list[dict], list[dict]]:
    """The members that see films, and those that know age, sex and view alone."""
    films = [member for member in checkpoint.members if member["checkpoint"]["size_px"]]
    return films, [member for member in checkpoint.members if not member["checkpoint"]["size_px"]]


def count_votes(logits: list[Tensor], votes: Tensor) -> Tensor:
    """Log-odds of the members' weighted mean probability, as training.ensembles.voting.vote: (batch, findings).

    logits: one tensor per member, (batch, findings). votes: (members, findings).
    """
    # In logarithms, because a probability next to 1 rounds to 1, whose log-odds are infinite.
    present, absent = (_mean([_log_sigmoid(sign * logit) for logit in logits], votes) for sign in (1, -1))
    return present - absent


def count_votes_for_classes(logits: list[Tensor], votes: Tensor) -> Tensor:
    """Logarithm of the members' weighted mean probability, whose softmax it is: (batch, classes).

    logits: one tensor per member, (batch, classes), of a softmax. votes: (members, classes), the same for all classes.
    """
    return _mean([logit.log_softmax(dim=1) for logit in logits], votes)


def _mean(logarithms: list[Tensor], votes: Tensor) -> Tensor:
    """Logarithm of the weighted mean of numbers whose logarithms are given, each (batch, findings)."""
    weights = votes.clamp(min=torch.finfo(torch.float32).tiny).log()
    terms = [logarithm + weight for logarithm, weight in zip(logarithms, weights, strict=True)]
    largest = terms[0]
    for term in terms[1:]:
        largest = torch.maximum(largest, term)
    return largest + sum((term - largest).exp() for term in terms).log()


def _log_sigmoid(values: Tensor) -> Tensor:
    return values.clamp(max=0) - torch.log1p((-values.abs()).exp())


def resampling(grid: Tensor, onto: Tensor) -> Tensor:
    """Matrix that a map is multiplied by along one side, to have its values at the cells of another: linear between
    cells, and that of the last cell beyond it. (cells of `onto`, cells) float32; grids: first, step, cells."""
    first, step, cells = grid.tolist()
    first_onto, step_onto, cells_onto = onto.tolist()
    matrix = np.zeros((int(cells_onto), int(cells)), np.float32)
    for row in range(int(cells_onto)):
        place = min(max((first_onto + step_onto * row - first) / step, 0), cells - 1)
        before = min(math.floor(place), int(cells) - 1)
        after = min(before + 1, int(cells) - 1)
        matrix[row, after] += place - before
        matrix[row, before] += 1 - (place - before)
    return torch.from_numpy(matrix)
