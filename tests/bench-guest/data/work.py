"""Work for a Python interpreter: objects, dictionaries, strings, lists, generators, big integers."""

import sys


class Account:
    def __init__(self, number):
        self.number = number
        self.balance = 0
        self.history = []

    def book(self, amount, text):
        self.balance += amount
        self.history.append((amount, text))
        return self


def queens(size, row=0, columns=0, left=0, right=0):
    if row == size:
        return 1
    count = 0
    for column in range(size):
        c, d, e = 1 << column, 1 << (row + column), 1 << (row - column + size)
        if not (columns & c or left & d or right & e):
            count += queens(size, row + 1, columns | c, left | d, right | e)
    return count


def words(seed, count):
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        yield "w%d" % (seed % 997)


def once(seed):
    counts = {}
    for word in words(seed, 5000):
        counts[word] = counts.get(word, 0) + 1
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
    accounts = [Account(i) for i in range(50)]
    for i in range(3000):
        accounts[i * 7 % 50].book(i % 13 - 6, f"entry {i}")
    balance = sum(a.balance * (a.number + 1) for a in accounts)
    text = ",".join(str(n) for n in range(2000))
    numbers = [int(part) for part in text.split(",") if part.endswith("7")]
    big = pow(3, 2000) % (10**40 + 7)
    return common, balance, sum(numbers), queens(6), big


for i in range(int(sys.argv[1])):
    print(once(i + 1))
