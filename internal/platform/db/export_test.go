package db

// Migrate is what Open does to the schemas.
var Migrate = migrate
