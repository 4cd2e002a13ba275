# Work for an awk: fields, associative arrays, substrings, patterns.
{
    for (i = 1; i <= NF; i++) {
        count[$i]++
        letters += length($i)
        if ($i ~ /^[a-m]+$/) early++
        if (match($i, /[aeiou][^aeiou][aeiou]/)) vowels += RSTART
    }
    line = $0
    changed += gsub(/e/, "E", line)
    sum = (sum * 31 + length(line) + NF) % 1000003
}
END {
    for (w in count) { different++; squares += count[w] * count[w] }
    print NR, letters, early, vowels, changed, sum, different, squares
}
