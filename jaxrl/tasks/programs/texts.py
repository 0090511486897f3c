"""The steps of the bundled small programs that work on a line of text, or on words: in words, and as Python.

    name: kind taken -> kind given, numbers that k is drawn from
      what to do, in English
        the Python that does it, with {x} for the value taken and {y} for the one given
      or
        another way to write it

Read by `programs.py`. What each means is said once more, as a function, in `meanings.py`.
"""

TEXT_STEPS = """
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
