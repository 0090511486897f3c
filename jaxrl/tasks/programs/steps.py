"""The steps that the bundled small programs are made of: in words, and as Python.

A table of them has the form

    name: kind taken -> kind given, numbers that k is drawn from
      what to do, in English
        the Python that does it, with {x} for the value taken and {y} for the one given
      or
        another way to write it

The first step of a program takes `input` (what its readers read is drawn in `inputs.py`), the last gives
`output`. What each step means is written once more, as a function, in `meanings.py`.
"""

from dataclasses import dataclass

ENDS = """
ints_on_a_line: input -> ints
  The only line of input holds integers, separated by spaces.
    {y} = list(map(int, input().split()))
counted_line: input -> ints
  The first line of input holds n; the second holds integers, of which only the first n count.
    n = int(input())
    {y} = [int(t) for t in input().split()][:n]
counted_lines: input -> ints
  The first line of input holds n, which may be 0; n lines follow with one integer each.
    {y} = []
    for _ in range(int(input())):
        {y}.append(int(input()))
ints_until_zero: input -> ints
  Each line of input holds one integer; the first 0 ends the list and does not belong to it.
    {y} = []
    while True:
        v = int(input())
        if v == 0:
            break
        {y}.append(v)
one_or_many: input -> ints
  The first line of input is `one` or `many`. After `one`, a line with the only integer follows;
  after `many`, a line with n and then n lines with one integer each.
    if input().strip() == 'many':
        {y} = [int(input()) for _ in range(int(input()))]
    else:
        {y} = [int(input())]
ints_anywhere: input -> ints
  The input holds integers, separated by spaces or line ends.
    import sys

    {y} = [int(t) for t in sys.stdin.read().split()]
one_int: input -> int
  The only line of input holds one integer.
    {y} = int(input())
product_less_sum: input -> int
  The only line of input holds two integers; take their product minus their sum.
    a, b = map(int, input().split())
    {y} = a * b - (a + b)
operation: input -> int
  The first line of input is `plus`, `times` or `flip`, the second an integer. For `plus` or `times`
  a third line holds another integer: add the two, or multiply them. For `flip`, change the sign of the
  only integer.
    operation = input()
    {y} = int(input())
    if operation == 'plus':
        {y} += int(input())
    elif operation == 'times':
        {y} *= int(input())
    else:
        {y} = -{y}
commands: input -> int
  The first line of input holds n; n lines follow with one command each, `add` and an integer, `times`
  and an integer, or `flip`. Begin with 0 and apply the commands in turn; `flip` changes the sign.
    {y} = 0
    for _ in range(int(input())):
        command = input().split()
        if command[0] == 'add':
            {y} += int(command[1])
        elif command[0] == 'times':
            {y} *= int(command[1])
        else:
            {y} = -{y}
line: input -> text
  The input is one line of text; spaces at its beginning belong to it.
    {y} = input()
two_lines: input -> text
  The input is two lines of text, with spaces at their beginnings belonging to them; join them to one
  line, with a `+` in between.
    {y} = input()
    {y} = {y} + '+' + input()
words_on_a_line: input -> words
  The only line of input holds words, separated by spaces.
    {y} = input().split()
words_until_end: input -> words
  Each line of input holds one word; the word `end` ends the list and does not belong to it.
    {y} = []
    word = input()
    while word != 'end':
        {y}.append(word)
        word = input()
print_int: int -> output
  Print the result.
    print({x})
print_answer: int -> output
  Print the result after the word `answer:` and a space.
    print('answer:', {x})
print_one_line: ints -> output
  Print the numbers on one line, separated by spaces; if there are none, print `none`.
    if {x}:
        print(*{x})
    else:
        print('none')
print_counted: ints -> output
  Print how many numbers there are, and then each number on a line of its own.
    print(len({x}))
    for v in {x}:
        print(v)
print_text: text -> output
  Print the resulting text.
    print({x})
print_brackets: text -> output
  Print the resulting text in square brackets.
    print('[' + {x} + ']')
print_commas: words -> output
  Print the words on one line, separated by a comma and a space; if there are none, print `none`.
    print(', '.join({x}) or 'none')
print_numbered: words -> output
  Print each word on a line of its own after its number and a point, as in `1. word`; then print a line `end`.
    for i, w in enumerate({x}, 1):
        print(str(i) + '. ' + w)
    print('end')
"""
ON_NUMBERS = """
add: ints -> ints, k in 1 2 3 5 7 10
  add {k} to each number
    {y} = [v + {k} for v in {x}]
  or
    {y} = []
    for v in {x}:
        {y}.append(v + {k})
multiply: ints -> ints, k in 2 3 4 5
  multiply each number by {k}
    {y} = [{k} * v for v in {x}]
  or
    {y} = list(map(lambda v: v * {k}, {x}))
square: ints -> ints
  replace each number by its square
    {y} = [v * v for v in {x}]
divisible: ints -> ints, k in 2 3 4
  keep only the numbers divisible by {k}
    {y} = [v for v in {x} if v % {k} == 0]
  or
    {y} = []
    for v in {x}:
        if v % {k} == 0:
            {y}.append(v)
at_least: ints -> ints, k in -5 -2 0 3 6
  remove the numbers that are less than {k}
    {y} = [v for v in {x} if v >= {k}]
  or
    {y} = []
    for v in {x}:
        if v < {k}:
            continue
        {y}.append(v)
remainder: ints -> ints, k in 3 4 5 7 9
  replace each number by its remainder after division by {k}, which is never negative
    {y} = [v % {k} for v in {x}]
ascending: ints -> ints
  sort the numbers from smallest to largest
    {y} = sorted({x})
  or
    {y} = list({x})
    {y}.sort()
descending: ints -> ints
  sort the numbers from largest to smallest
    {y} = sorted({x}, reverse=True)
by_absolute_value: ints -> ints
  sort the numbers by absolute value, smallest first; numbers of the same absolute value keep their order
    {y} = sorted({x}, key=abs)
reverse: ints -> ints
  reverse the order of the numbers
    {y} = {x}[::-1]
  or
    {y} = []
    for v in {x}:
        {y}.insert(0, v)
first_occurrences: ints -> ints
  drop every number that has occurred before
    {y} = []
    for v in {x}:
        if v not in {y}:
            {y}.append(v)
  or
    {y} = list(dict.fromkeys({x}))
running_sums: ints -> ints
  replace each number by the sum of all numbers up to and including it
    {y} = []
    running = 0
    for v in {x}:
        running += v
        {y}.append(running)
differences: ints -> ints
  replace the list by its differences: each number minus the one before it, from the second number on
    {y} = [{x}[i] - {x}[i - 1] for i in range(1, len({x}))]
every_kth: ints -> ints, k in 2 3
  keep the first number, the one {k} places after it, and so on in steps of {k}
    {y} = {x}[::{k}]
  or
    {y} = []
    for i in range(0, len({x}), {k}):
        {y}.append({x}[i])
rotate: ints -> ints, k in 1 2 3
  {k} times over, move the first number to the end (an empty list stays empty)
    {y} = list({x})
    for _ in range({k}):
        if {y}:
            {y}.append({y}.pop(0))
no_negatives: ints -> ints
  replace negative numbers by 0
    {y} = [max(v, 0) for v in {x}]
  or
    {y} = []
    for v in {x}:
        if v < 0:
            v = 0
        {y}.append(v)
halve_even: ints -> ints
  halve the even numbers and leave the odd ones as they are
    {y} = [v // 2 if v % 2 == 0 else v for v in {x}]
record_highs: ints -> ints
  keep a number only if it is greater than all numbers before it (the first always stays)
    {y} = []
    for v in {x}:
        if not {y} or v > {y}[-1]:
            {y}.append(v)
swap_pairs: ints -> ints
  swap the first number with the second, the third with the fourth, and so on; a last one without
  a partner stays
    {y} = list({x})
    for i in range(0, len({y}) - 1, 2):
        {y}[i], {y}[i + 1] = {y}[i + 1], {y}[i]
sum: ints -> int
  add the numbers up (no numbers: 0)
    {y} = sum({x})
  or
    {y} = 0
    for v in {x}:
        {y} += v
spread: ints -> int
  take the largest number minus the smallest (no numbers: 0)
    {y} = max({x}) - min({x}) if {x} else 0
alternating_sum: ints -> int
  take the sum of the 1st, 3rd, 5th, ... number minus the sum of the 2nd, 4th, 6th, ...
    {y} = sum({x}[::2]) - sum({x}[1::2])
  or
    {y} = 0
    for i, v in enumerate({x}):
        {y} += v if i % 2 == 0 else -v
product: ints -> int
  multiply the numbers together, and keep the remainder after division by 10007 (no numbers: 1)
    {y} = 1
    for v in {x}:
        {y} = {y} * v % 10007
gcd: ints -> int
  take the greatest common divisor of the numbers (of none, or of zeros alone: 0)
    import math

    {y} = 0
    for v in {x}:
        {y} = math.gcd({y}, v)
  or
    {y} = 0
    for v in {x}:
        v = abs(v)
        while v:
            {y}, v = v, {y} % v
inversions: ints -> int
  count the pairs in which the earlier number is greater than the later one
    {y} = 0
    for i in range(len({x})):
        for j in range(i + 1, len({x})):
            if {x}[i] > {x}[j]:
                {y} += 1
longest_climb: ints -> int
  find how many numbers the longest stretch of neighbours has in which each is greater than the one
  before it (no numbers: 0)
    {y} = run = 0
    for i in range(len({x})):
        run = run + 1 if i and {x}[i] > {x}[i - 1] else 1
        {y} = max({y}, run)
most_frequent: ints -> int
  take the number that occurs most often, the smallest if there are several (no numbers: 0)
    {y} = min({x}, key=lambda v: (-{x}.count(v), v)) if {x} else 0
second_largest: ints -> int
  take the second largest of the different numbers (fewer than two: 0)
    ranked = sorted(set({x}))
    {y} = ranked[-2] if len(ranked) > 1 else 0
low_or_high: ints -> words, k in 0 3 5
  replace each number by the word `low` if it is less than {k}, else `high`
    {y} = ['low' if v < {k} else 'high' for v in {x}]
scale_minus_one: int -> int, k in 2 3 5
  multiply it by {k} and subtract 1
    {y} = {k} * {x} - 1
halve_or_triple: int -> int
  halve it if it is even, otherwise triple it and add 1
    if {x} % 2 == 0:
        {y} = {x} // 2
    else:
        {y} = 3 * {x} + 1
digit_sum: int -> int
  add up the digits of its absolute value
    {y} = sum(int(c) for c in str(abs({x})))
  or
    {y} = 0
    rest = abs({x})
    while rest > 0:
        {y} += rest % 10
        rest //= 10
collatz: int -> int
  take its absolute value, and count how often `halve if even, else triple and add 1` must be applied
  until it is at most 1
    {y} = 0
    m = abs({x})
    while m > 1:
        if m % 2 == 0:
            m //= 2
        else:
            m = 3 * m + 1
        {y} += 1
ones: int -> int
  count the ones in the binary form of its absolute value
    {y} = bin(abs({x})).count('1')
  or
    {y} = 0
    rest = abs({x})
    while rest:
        {y} += rest % 2
        rest //= 2
square_remainder: int -> int, k in 101 257 997
  take the remainder of its square after division by {k}
    {y} = {x} ** 2 % {k}
reverse_digits: int -> int
  write its digits in reverse order, drop leading zeros, and keep its sign
    {y} = int(str(abs({x}))[::-1])
    if {x} < 0:
        {y} = -{y}
binary: int -> text
  write its absolute value in binary
    {y} = format(abs({x}), 'b')
  or
    {y} = bin(abs({x}))[2:]
digits: int -> ints
  list the digits of its absolute value, from left to right
    {y} = [int(c) for c in str(abs({x}))]
"""
ON_TEXTS = """
reverse_text: text -> text
  reverse the line
    {y} = {x}[::-1]
  or
    {y} = ''
    for c in {x}:
        {y} = c + {y}
capitals: text -> text
  turn its letters into capitals
    {y} = {x}.upper()
swap_case: text -> text
  turn small letters into capitals and capitals into small letters
    {y} = {x}.swapcase()
  or
    {y} = ''.join(c.lower() if c.isupper() else c.upper() for c in {x})
shift: text -> text, k in 1 3 5 13
  move each letter from a to z on by {k} places in the alphabet, from z on to a; other characters stay
    {y} = ''
    for c in {x}:
        if 'a' <= c <= 'z':
            c = chr((ord(c) - ord('a') + {k}) % 26 + ord('a'))
        {y} += c
drop_vowels: text -> text
  remove the small vowels a, e, i, o and u
    {y} = ''.join(c for c in {x} if c not in 'aeiou')
squeeze: text -> text
  where the same character stands several times in a row, keep it once
    {y} = ''
    for c in {x}:
        if not {y}.endswith(c):
            {y} += c
run_lengths: text -> text
  replace each stretch of equal characters by the character and its length, as in `aab` to `a2b1`
    {y} = ''
    i = 0
    while i < len({x}):
        j = i
        while j < len({x}) and {x}[j] == {x}[i]:
            j += 1
        {y} += {x}[i] + str(j - i)
        i = j
underscores: text -> text
  replace each space by an underscore
    {y} = {x}.replace(' ', '_')
repeat_each: text -> text, k in 2 3
  write every character {k} times
    {y} = ''.join(c * {k} for c in {x})
odd_places: text -> text
  keep the 1st, 3rd, 5th, ... character
    {y} = {x}[::2]
sort_characters: text -> text
  sort its characters by their character codes
    {y} = ''.join(sorted({x}))
mirror: text -> text
  append the line's own reverse to it
    {y} = {x} + {x}[::-1]
length: text -> int
  count its characters, spaces included
    {y} = len({x})
vowels: text -> int
  count its vowels (a, e, i, o, u, small or capital)
    {y} = sum(c in 'aeiou' for c in {x}.lower())
  or
    {y} = 0
    for c in {x}:
        if c in 'aeiouAEIOU':
            {y} += 1
letter_values: text -> int
  add up the places of its small letters in the alphabet (a is 1, z is 26)
    {y} = sum(ord(c) - 96 for c in {x} if 'a' <= c <= 'z')
character_counts: text -> ints
  list, for each different character in the order of first occurrence, how often it occurs
    counts = {}
    for c in {x}:
        counts[c] = counts.get(c, 0) + 1
    {y} = list(counts.values())
split: text -> words
  split the line into words at its spaces
    {y} = {x}.split()
sort_words: words -> words
  sort the words by their character codes
    {y} = sorted({x})
sort_by_length: words -> words
  sort the words by length, shortest first; words of the same length keep their order
    {y} = sorted({x}, key=len)
reverse_words: words -> words
  reverse the order of the words
    {y} = list(reversed({x}))
reverse_each: words -> words
  reverse each word
    {y} = [w[::-1] for w in {x}]
long_words: words -> words, k in 3 4 5
  keep only the words of at least {k} letters
    {y} = [w for w in {x} if len(w) >= {k}]
first_words: words -> words
  drop every word that has occurred before
    {y} = []
    seen = set()
    for w in {x}:
        if w not in seen:
            seen.add(w)
            {y}.append(w)
word_counts: words -> words
  replace the words by `word:count` for each different word, sorted by the word's character codes
    counts = {}
    for w in {x}:
        counts[w] = counts.get(w, 0) + 1
    {y} = [w + ':' + str(counts[w]) for w in sorted(counts)]
word_lengths: words -> ints
  replace each word by its length
    {y} = [len(w) for w in {x}]
  or
    {y} = list(map(len, {x}))
initials: words -> text
  join the first letters of the words to one text
    {y} = ''.join(w[0] for w in {x})
longest_word: words -> text
  take the longest word, the first of them if there are several (no words: `-`)
    {y} = '-'
    longest = 0
    for w in {x}:
        if len(w) > longest:
            {y}, longest = w, len(w)
hyphens: words -> text
  join the words with hyphens
    {y} = '-'.join({x})
"""


@dataclass(frozen=True)
class Step:
    """One entry of a table."""

    name: str
    takes: str
    gives: str
    ks: tuple[int, ...]
    says: str
    forms: tuple[str, ...]


def read_steps(table: str) -> list[Step]:
    """The steps of a table."""
    steps: list[Step] = []
    for line in table.strip().splitlines():
        if line and not line.startswith(" "):
            head, _, ks = line.partition(", k in ")
            name, _, kinds = head.partition(": ")
            takes, _, gives = kinds.partition(" -> ")
            steps.append(Step(name, takes, gives, tuple(map(int, ks.split())) or (0,), "", ("",)))
        else:
            steps[-1] = _with_line(steps[-1], line)
    return steps


def _with_line(step: Step, line: str) -> Step:
    says, forms = step.says, step.forms
    if line == "  or":
        forms = (*forms, "")
    elif line.startswith("    ") or not line:
        forms = (*forms[:-1], forms[-1] + line[4:] + "\n")
    else:
        says = f"{says} {line.strip()}".strip()
    return Step(step.name, step.takes, step.gives, step.ks, says, forms)


STEPS = tuple(step for table in (ENDS, ON_NUMBERS, ON_TEXTS) for step in read_steps(table))
