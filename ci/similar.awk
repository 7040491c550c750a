# Prints the name that is most like `slip`, if one is: by the letters to add, take away or change.
function least(a, b) { return a < b ? a : b }
function distance(a, b,    i, j, before, diagonal, row) {
    for (j = 0; j <= length(b); j++) row[j] = j
    for (i = 1; i <= length(a); i++) {
        diagonal = row[0]
        row[0] = i
        for (j = 1; j <= length(b); j++) {
            before = row[j]
            row[j] = least(least(row[j], row[j - 1]) + 1, \
                diagonal + (substr(a, i, 1) != substr(b, j, 1)))
            diagonal = before
        }
    }
    return row[length(b)]
}
BEGIN { best = int((length(slip) + 2) / 3) + 1 }
{
    # Capitals in place of small letters, or the other way round, are nearly right.
    d = distance(tolower(slip), tolower($0)) + ((tolower(slip) == slip) != (tolower($0) == $0)) / 2
    if (d < best) { best = d; name = $0 }
}
END { if (name != "") print name }
