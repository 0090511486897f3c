"""The steps of the bundled small programs that work on integers: in words, and as Python.

    name: kind taken -> kind given, numbers that k is drawn from
      what to do, in English
        the Python that does it, with {x} for the value taken and {y} for the one given
      or
        another way to write it

Read by `programs.py`. What each means is said once more, as a function, in `meanings.py`.
"""

NUMBER_STEPS = """
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
