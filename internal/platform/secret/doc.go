// Package secret keeps secrets: a type that never prints, and envelope encryption for what must lie on a disk or in a
// database (client secrets, private keys, refresh tokens, cached key sets).
//
// [Text] is a secret in memory. Every way Go has of printing it shows "[secret]"; only [Text.Reveal] gives the value.
//
// [Keyring] is the node's key-encryption key, a Tink AES256-GCM keyset. [Keyring.Seal] makes a fresh data key for every
// value, encrypts the value with it and the data key with the keyring (envelope encryption), and binds both to the
// [Place] the value is stored at: a sealed value moved to another row, or to the same row of another column, does not open.
// Keys are rotated by adding one and promoting it; older keys still open what they sealed until everything was resealed.
//
// The keyring lies in a file of mode 0600 in the data directory, or comes from an environment variable where nodes share
// one database and therefore one keyring. The package stores nothing else and knows nobody who uses it.
package secret
