// Package secret protects secrets: a type that never prints, and envelope encryption for what is stored on disk or in a
// database (client secrets, private keys, refresh tokens, cached key sets).
//
// [Text] is a secret in memory. Every way of printing it in Go shows "[secret]"; only [Text.Reveal] returns the value.
//
// [Keyring] is the node's key-encryption key, a Tink AES256-GCM keyset. [Keyring.Seal] creates a new data key for every
// value, encrypts the value with it and the data key with the keyring (envelope encryption), and binds both to the
// [Place] where the value is stored: a sealed value moved to another row, or to another column of the same row, does
// not open. A [Rotation] adds a key, makes it the one that seals and seals the database's values again; older keys open
// what they sealed.
//
// The keyring is in a file of mode 0600 in the data directory, or in an environment variable where nodes share one
// database and therefore one keyring. The package stores nothing else and does not depend on its users.
package secret
