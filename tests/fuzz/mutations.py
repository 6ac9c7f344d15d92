"""Change values, trees and files at random, from a seed."""

import copy
import random

ODD = [
    None, "", [], {}, -1, 0, 0.5, 3, float("nan"), float("inf"), float("-inf"), 1e30, 10**30, "x", True, "${nonsense}",
    "long" * 800, "ä漢字\u202e\U0001f4f7", [[1]], [1, "x", None], {"a": {"b": [1]}}, "nan", "../..", "a\nb", [-1, -2],
]  # fmt: skip


def mutated_tree(tree, random_, odd=ODD, times=1):
    """A JSON-like tree with values replaced, taken away, renamed, doubled or wrapped."""
    for _ in range(times):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = random_.choice(places)
        choice = random_.randrange(8)
        if choice < 5:
            holder[key] = copy.deepcopy(random_.choice(odd))
        elif choice == 5:
            del holder[key]
        elif choice == 6 and isinstance(holder, dict):
            holder[random_.choice(["nonsense", "ä", "", "-1"])] = holder.pop(key)
        elif isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[key]))
        else:
            holder[key] = [holder[key]]
    return tree


def _places(node):
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from _places(node[key])


def mutated_bytes(content, random_):
    """Bytes flipped, cut, put in, doubled, or made nought."""
    content = bytearray(content)
    choice = random_.randrange(7)
    place = random_.randrange(len(content) + 1)
    if random_.random() < 0.5:  # headers lie at the beginning
        place = min(place, random_.randrange(200))
    if choice <= 1:
        for _ in range(random_.choice([1, 1, 2, 8, 64])):
            if content:
                spot = (
                    random_.randrange(min(len(content), 400))
                    if random_.random() < 0.5
                    else random_.randrange(len(content))
                )
                content[spot] ^= 1 << random_.randrange(8)
    elif choice == 2:
        del content[place:]
    elif choice == 3:
        content[place:place] = random_.randbytes(random_.choice([1, 2, 7, 300]))
    elif choice == 4:
        del content[place : place + random_.choice([1, 4, 50])]
    elif choice == 5:
        content[place : place + random_.choice([4, 40])] = bytes([random_.choice([0, 255])]) * random_.choice([4, 40])
    else:
        content = bytearray(random_.choice([b"", b"\0", b"\xff\xfe", bytes(300), content[::-1], content * 2]))
    return bytes(content)


def mutate_file(path, random_):
    path.write_bytes(mutated_bytes(path.read_bytes(), random_))


def seeded(draw, st):
    """A source of chance that a case is drawn from."""
    return random.Random(draw(st.integers(0, 2**63)))


def quoted(path):
    """A path as an override's value."""
    return "'" + str(path).replace("'", "\\'") + "'"
